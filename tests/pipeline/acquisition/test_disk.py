"""Trouble with the disk is found wherever it hides, and nothing else is taken for it."""

import errno
import zipfile

import pytest

from pipeline.acquisition import archive, cut
from pipeline.acquisition.archive import ArchiveSource
from pipeline.acquisition.disk import check_error, check_words
from pipeline.acquisition.facts import BadMedia
from pipeline.acquisition.source import Place


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_it_is_found_behind_other_errors_and_names_the_path(tmp_path, code):
    try:
        try:
            raise OSError(code, "of the system")
        except OSError as error:
            outer = RuntimeError("of a library")
            outer.exc_info = (type(error), error, None)
            raise outer from None
    except RuntimeError as error:
        with pytest.raises(OSError, match="clip") as caught:
            check_error(error, tmp_path / "clip")
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "clip"))


def test_other_errors_and_words_are_none(tmp_path):
    check_error(ConnectionResetError(errno.ECONNRESET, "reset"), tmp_path)
    check_error(OSError("member is too long"), tmp_path)
    check_words("v.mp4: Input/output error", tmp_path)


def test_a_cut_and_an_archive_say_so(tmp_path, video, monkeypatch):
    words = {"full": "av_interleaved_write_frame(): No space left on device", "broken": "Invalid data found"}
    for name, text in words.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(cut, "ffmpeg_program", lambda: str(tmp_path / "full"))
    with pytest.raises(OSError, match=r"No space left on device.*made"):
        cut.cut(video, tmp_path / "made.mp4", 0.0, 1.0)
    monkeypatch.setattr(cut, "ffmpeg_program", lambda: str(tmp_path / "broken"))
    with pytest.raises(BadMedia, match="Invalid data"):
        cut.cut(video, tmp_path / "made.mp4", 0.0, 1.0)

    with zipfile.ZipFile(tmp_path / "have.zip", "w") as made:
        made.write(video, "v.mp4")
    monkeypatch.setattr(archive, "open", lambda *_: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device"):
        ArchiveSource([tmp_path / "have.zip"]).fetch(Place("v.mp4"), tmp_path)
