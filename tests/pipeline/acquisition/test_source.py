"""Ids in file names, and what a file holds."""

import pytest

from pipeline.acquisition.folder import FolderSource
from pipeline.acquisition.source import CLIP, EITHER, VIDEO, Index, Place, decide
from pipeline.manifest import Clip, ManifestError

CLIP_OF = Clip("-aBcDeFgHiJ_20_30", "-aBcDeFgHiJ", 20.0, 10.0)


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (["x/-aBcDeFgHiJ_20_30.mp4", "-aBcDeFgHiJ.mp4"], Place("x/-aBcDeFgHiJ_20_30.mp4", CLIP)),
        (["full/-aBcDeFgHiJ.webm", "-aBcDeFgHiJ.mp4"], Place("full/-aBcDeFgHiJ.webm", VIDEO)),
        (["AVE/-aBcDeFgHiJ.mp4"], Place("AVE/-aBcDeFgHiJ.mp4", EITHER)),
        (["A title [with] words [-aBcDeFgHiJ].mkv"], Place("A title [with] words [-aBcDeFgHiJ].mkv", EITHER)),
        (["v_-aBcDeFgHiJ.mp4"], Place("v_-aBcDeFgHiJ.mp4", EITHER)),
        (["-abcdefghij.mp4", "aBcDeFgHiJ.mp4", "-aBcDeFgHiJ_30_40.mp4"], None),
    ],
)
def test_names_are_matched_by_id(names, place):
    assert Index(names).find(CLIP_OF) == place


def test_a_clips_own_path_comes_first():
    clip = Clip("a-x", "a-x", 0.0, 5.0, media="a/x.avi")
    assert Index(["a-x.mp4", "a/x.avi"]).find(clip) == Place("a/x.avi", CLIP)


@pytest.mark.parametrize(
    ("holds", "length_s", "start_s", "starts", "expected"),
    [
        (EITHER, 10.02, 20.0, 1, CLIP),
        (EITHER, 240.0, 20.0, 1, VIDEO),
        (EITHER, 10.0, 20.0, 2, VIDEO),  # two clips cannot both be the whole file
        (EITHER, 240.0, None, 1, CLIP),  # nobody knows where to cut; the check will say so
        (VIDEO, 10.0, 20.0, 1, VIDEO),
        (CLIP, 240.0, 20.0, 1, CLIP),
    ],
)
def test_clip_or_video(holds, length_s, start_s, starts, expected):
    assert decide(holds, length_s, Clip("a", "a", start_s, 10.0), starts, 0.5) == expected


def test_a_folder_is_looked_through_but_not_left(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "-aBcDeFgHiJ.mp4").write_bytes(b"x")
    (tmp_path / "outside.mp4").write_bytes(b"x")
    (tmp_path / "in" / "outside.mp4").symlink_to(tmp_path / "outside.mp4")
    source = FolderSource(tmp_path / "in")
    assert source.locate(CLIP_OF).name == "deep/-aBcDeFgHiJ.mp4"
    assert source.locate(Clip("outside", "outside")) is None
    with pytest.raises(ManifestError, match="no such folder"):
        FolderSource(tmp_path / "nowhere")
