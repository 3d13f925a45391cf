"""Errors that tell of this machine and not of a file: they are no outcome of a clip, and end the job instead."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from av.error import FFmpegError

_MACHINE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
    }
)
# FFmpeg gives these also for data that end too early or make no sense.
_AMBIGUOUS = (errno.EIO, errno.EPERM)
# And ENOMEM where a damaged header asks for more than FFmpeg ever allocates; this much is more than a decoder needs.
_PLENTY_BYTES = 256 << 20


class AccessError(OSError):
    """A file could not be read here and now; another run may."""


def is_access_error(error: Exception) -> bool:
    """Whether the system refused something; FFmpeg's own errors, of which few are that, pass `check_access` first."""
    return isinstance(error, OSError) and not isinstance(error, FFmpegError) and error.errno in _MACHINE


def check_access(error: FFmpegError, path: Path) -> None:
    """Return if an error of FFmpeg, met while `path` was read, tells of the file.

    Raises:
        AccessError: it tells of this machine.
    """
    _check(error.errno, path)


def check_words(words: str, path: Path) -> None:
    """The same for what the program ffmpeg said when it failed."""
    for number in sorted(_MACHINE):
        if any(line.rstrip().endswith(os.strerror(number)) for line in words.splitlines()):
            _check(number, path)


def _check(number: int, path: Path) -> None:
    if number not in _MACHINE:
        return
    if number in _AMBIGUOUS:
        try:
            _read(path)
        except OSError as real:
            number = real.errno
        else:
            return
    if number == errno.ENOMEM and _has_memory():
        return
    raise AccessError(number, os.strerror(number), str(path))


def _has_memory() -> bool:
    try:
        bytearray(_PLENTY_BYTES)
    except MemoryError:
        return False
    return True


def _read(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
