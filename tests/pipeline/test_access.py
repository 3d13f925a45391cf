"""Errors of this machine, told from those of a file."""

import errno
import os

import av
import pytest

from pipeline import access
from pipeline.access import AccessError, check_access, check_words, is_access_error
from pipeline.media import Media
from pipeline.mediafile import MediaError
from tests import media_factory as make


def of_ffmpeg(number: int) -> av.FFmpegError:
    return av.error.classes[number](number, os.strerror(number), "a.mp4")


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM])
def test_what_ffmpeg_also_says_of_bad_data_counts_if_the_file_cannot_be_read(tmp_path, monkeypatch, number):
    path = make.not_media(tmp_path / "a.mp4")
    check_access(of_ffmpeg(number), path)
    check_words(f"{path}: {os.strerror(number)}", path)

    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(access, "_read", broken)
    with pytest.raises(AccessError, match="Input/output error"):
        check_access(of_ffmpeg(number), path)
    with pytest.raises(AccessError, match="Input/output error"):
        check_words(f"first\n{path}: {os.strerror(number)}\nlast", path)


def test_a_header_that_asks_for_too_much_memory_is_the_files_fault(tmp_path, monkeypatch):
    path = make.not_media(tmp_path / "a.mp4")
    check_access(of_ffmpeg(errno.ENOMEM), path)
    check_words(f"{path}: Cannot allocate memory", path)
    monkeypatch.setattr(access, "_PLENTY_BYTES", 1 << 60)
    with pytest.raises(AccessError, match="Cannot allocate memory"):
        check_access(of_ffmpeg(errno.ENOMEM), path)


def test_a_full_disk_is_not_the_clip(tmp_path):
    path = make.not_media(tmp_path / "No space left on device.mp4")
    check_words(f"{path}: Invalid data found when processing input", path)
    with pytest.raises(AccessError) as caught:
        check_words("av_interleaved_write_frame(): No space left on device\nConversion failed!\n", path)
    assert caught.value.errno == errno.ENOSPC
    assert is_access_error(caught.value)
    assert is_access_error(PermissionError(errno.EACCES, "no"))
    assert not is_access_error(FileNotFoundError(errno.ENOENT, "gone"))
    assert not is_access_error(of_ffmpeg(errno.EPERM))  # a seek that fails says so


def test_a_file_that_stops_being_readable_is_not_cut_off(tmp_path, monkeypatch):
    """While it is decoded: what was read until then must not pass for all of it."""
    path = make.numbered(tmp_path / "a.mp4")
    with Media(path) as media:

        def stale(self, *streams):
            raise of_ffmpeg(errno.ESTALE)
            yield

        class Container:
            def __init__(self, container):
                self.container, self.streams = container, container.streams

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.container.close()

            demux = stale

        real = media._file.open
        monkeypatch.setattr(media._file, "open", lambda *a, **k: Container(real(*a, **k)))
        with pytest.raises(AccessError, match="Stale file handle"):
            media.audio(None)
        media.timeline()
        with pytest.raises(AccessError, match="Stale file handle"):
            media.frames([3])


def test_invalid_data_stays_a_reason(tmp_path):
    with pytest.raises(MediaError) as caught:
        Media(make.not_media(tmp_path / "a.mp4"))
    assert caught.value.outcome == "not-media"
