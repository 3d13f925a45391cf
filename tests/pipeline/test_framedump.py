"""The `-r 8` dump: the official JPEGs where the right ffmpeg is, its picture count everywhere, names that bite."""

import errno
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import framedump
from pipeline.access import AccessError
from pipeline.media import Media
from pipeline.mediafile import MediaError
from tests.media_factory import not_media, numbered, read_number

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
OFFICIAL = sorted((CLIPS / "BjCEufrlXm4_frames").glob("*.jpg"))
VIDEO = CLIPS / "BjCEufrlXm4.mp4"


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "dump"
    made.mkdir()
    return made


@pytest.fixture
def video(tmp_path) -> Path:
    """Two seconds at 30 frames a second whose frames carry their numbers."""
    return numbered(tmp_path / "video.mp4", duration_s=2.0, fps=30)


@pytest.mark.skipif(len(OFFICIAL) != 82, reason="the 82 official JPEGs of BjCEufrlXm4 are not in ../shared/data/clips")
def test_official_jpegs_to_the_pixel(folder):
    stated = framedump.version(framedump.executable())
    if not framedump.is_faithful(stated):
        pytest.skip(f"ffmpeg {stated} codes JPEGs differently from the authors'; 4.3 to 5.1 is needed")
    paths = framedump.dump(VIDEO, folder)
    assert [path.name for path in paths] == [path.name for path in OFFICIAL]
    for number, (found, wanted) in enumerate(
        zip(framedump.read_jpegs(paths), framedump.read_jpegs(OFFICIAL), strict=True)
    ):
        np.testing.assert_array_equal(found, wanted, err_msg=f"picture {number}")


@pytest.mark.skipif(len(OFFICIAL) != 82, reason="the 82 official JPEGs of BjCEufrlXm4 are not in ../shared/data/clips")
def test_any_ffmpeg_picks_the_same_frames_and_the_filter_does_not(folder):
    """The dump is nearest to the official picture of the same number, which a lead of 0.2 s would not be."""
    found = np.stack(list(framedump.read_jpegs(framedump.dump(VIDEO, folder)))).astype(np.float32)
    wanted = np.stack(list(framedump.read_jpegs(OFFICIAL))).astype(np.float32)
    assert len(found) == 82
    same = np.abs(found - wanted).mean(axis=(1, 2, 3))
    assert same.max() < 4
    shifted = np.abs(found[1:] - wanted[:-1]).mean(axis=(1, 2, 3))
    assert np.median(shifted) > 2 * max(np.median(same), 0.1)


def test_pictures_come_eight_a_second_and_lag(video, folder):
    numbers = [read_number(picture) for picture in framedump.read_jpegs(framedump.dump(video, folder))]
    assert len(numbers) == 8 * 2 + 2
    assert numbers[0] == 0
    # Picture k stands for k / 8 s; `-r 8` shows what was on screen 2 to 5 frames (up to 0.15 s) before.
    lag = np.arange(18)[2:] * 30 / 8 - numbers[2:]
    assert lag.min() >= 2
    assert lag.max() <= 5


def test_a_clip_inside_a_longer_file(video, folder):
    numbers = [read_number(picture) for picture in framedump.read_jpegs(framedump.dump(video, folder, 1.0, 0.5))]
    assert min(numbers) >= 30
    assert max(numbers) < 45


@pytest.mark.parametrize("name", ["-i.mp4", "a:b %03d.mp4", "'; rm -rf x.mp4", "#?&.mp4"])
def test_names_are_only_names(video, tmp_path, name):
    folder = tmp_path / "100%d out"
    folder.mkdir()
    odd = tmp_path / name
    shutil.copy(video, odd)
    assert len(framedump.dump(odd, folder)) == 18


def test_a_file_without_pictures_is_a_counted_reason(tmp_path, folder):
    with pytest.raises(MediaError, match=r"broken.mp4: ffmpeg .* after 0 pictures \(.*Invalid data") as caught:
        framedump.dump(not_media(tmp_path / "broken.mp4"), folder)
    assert caught.value.outcome == "decode-error"


@pytest.mark.parametrize(
    ("end", "outcome", "words"),
    [("exit 69", "decode-error", "ends with 69 after 3 pictures"), ("kill -9 $$", "crashed", "ends with -9")],
)
def test_a_dump_that_ffmpeg_does_not_finish_is_a_counted_reason(
    tmp_path, folder, video, monkeypatch, end, outcome, words
):
    program = tmp_path / "ffmpeg"
    script = f"""[ "$1" = -version ] && echo "ffmpeg version 5.1" && exit
    for number in 1 2 3; do touch {folder}/00000$number.jpg; done
    echo "first trouble" >&2; echo "the last words" >&2; {end}"""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(framedump, "executable", lambda: str(program))
    with pytest.raises(MediaError, match=rf"video.mp4: ffmpeg 5.1 {words}.*\(the last words\)") as caught:
        framedump.dump(video, folder)
    assert caught.value.outcome == outcome


def test_a_full_folder_of_frames_is_named_and_not_the_video(tmp_path, folder, video, monkeypatch):
    program = tmp_path / "ffmpeg"
    script = """[ "$1" = -version ] && echo "ffmpeg version 5.1" && exit
    echo "av_interleaved_write_frame(): No space left on device" >&2; exit 1"""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(framedump, "executable", lambda: str(program))
    with pytest.raises(AccessError) as caught:
        framedump.dump(video, folder)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder))


def test_the_media_view_reads_the_dump(video):
    with Media(video) as media:
        timeline = media.timeline("jpeg-r8")
        frames = media.frames(np.array([0, 17, 0]), "jpeg-r8")
    np.testing.assert_array_equal(timeline, np.arange(18) / 8)
    assert frames.shape == (3, 240, 320, 3)
    np.testing.assert_array_equal(frames[0], frames[2])
    assert read_number(frames[1]) > 50


@pytest.mark.parametrize(
    ("stated", "faithful"),
    [
        ("4.3", True),
        ("4.3.1-static", True),
        ("n4.4.2", True),
        ("5.1.9-0+deb12u1", True),
        ("4.2.7", False),
        ("5.2", False),
        ("6.1", False),
        ("10.0", False),
        ("N-1234-gabc", False),
    ],
)
def test_versions(stated, faithful):
    assert framedump.is_faithful(stated) is faithful


@pytest.mark.parametrize(("stated", "level"), [("5.1.9", logging.INFO), ("7.1", logging.WARNING)])
def test_says_which_ffmpeg_is_used(monkeypatch, caplog, stated, level):
    monkeypatch.setattr(framedump, "version", lambda program: stated)
    framedump._announce.cache_clear()
    with caplog.at_level(logging.INFO):
        framedump._announce("somewhere/ffmpeg")
    framedump._announce.cache_clear()
    assert [(record.levelno, stated in record.getMessage()) for record in caplog.records] == [(level, True)]


def test_without_a_system_ffmpeg_the_packaged_one_serves(monkeypatch, video, folder):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "imageio_ffmpeg" in framedump.executable()
    assert len(framedump.dump(video, folder)) == 18


def test_jpegs_are_rgb_whatever_they_store(tmp_path):
    Image.fromarray(np.full((4, 6), 200, np.uint8)).save(tmp_path / "grey.jpg")
    assert next(framedump.read_jpegs([tmp_path / "grey.jpg"])).shape == (4, 6, 3)
