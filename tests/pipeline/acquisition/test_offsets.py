"""AudioSet's segment lists and UnAV-100's table of windows, joined by id."""

import pytest

from pipeline.acquisition.offsets import apply_offsets, read_offsets
from pipeline.manifest import Clip, ManifestError

AUDIOSET = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 56.500, "/m/012xff"
"""


def test_both_formats(tmp_path):
    (tmp_path / "a.csv").write_text(AUDIOSET)
    (tmp_path / "u.csv").write_text("72f67ednp7w,30.5,77.68\n--PJHxphWEs,30,40\n")
    offsets = read_offsets([tmp_path / "a.csv", tmp_path / "u.csv"])
    assert offsets == {"--PJHxphWEs": (30.0, 40.0), "--ZhevVpy1s": (50.0, 56.5), "72f67ednp7w": (30.5, 77.68)}


def test_problems_are_listed_together(tmp_path):
    (tmp_path / "a.csv").write_text(
        "--PJHxphWEs, 1, 2\n--PJHxphWEs, 3, 4\nshort, 1, 2\n--ZhevVpy1s, x, 2\n--ZhevVpy1s, 9, 2\n"
    )
    with pytest.raises(ManifestError) as caught:
        read_offsets([tmp_path / "a.csv", tmp_path / "none.csv"])
    assert len(caught.value.problems) == 5


def test_only_clips_without_a_start_get_one():
    offsets = {"--PJHxphWEs": (30.0, 40.0), "--ZhevVpy1s": (50.0, 56.5)}
    clips = [
        Clip("0_a", "--PJHxphWEs", None, 10.0),
        Clip("1_b", "--ZhevVpy1s", None, 10.0),
        Clip("2_c", "--PJHxphWEs", 3.0, 10.0),
        Clip("3_d", "ZZZZZZZZZZZ", None, 10.0),
    ]
    placed = apply_offsets(clips, offsets)
    assert [(clip.start_s, clip.duration_s) for clip in placed] == [
        (30.0, 10.0),
        (50.0, 6.5),
        (3.0, 10.0),
        (None, 10.0),
    ]
