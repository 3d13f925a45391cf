"""Errors that tell of this machine and not of a file: they are no outcome of a clip, and end the job instead."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MACHINE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.ENOMEM,
    }
)
# FFmpeg gives these also for data that end too early or make no sense.
_AMBIGUOUS = (errno.EIO, errno.EPERM)


class AccessError(OSError):
    """A file could not be read here and now; another run may."""


def check_access(error: Exception, path: Path) -> None:
    """Return if an error, met while `path` was read, tells of the file.

    Raises:
        AccessError: it tells of this machine.
    """
    from av.error import FFmpegError

    number = getattr(error, "errno", None)
    if number not in _MACHINE:
        return
    if number in _AMBIGUOUS and isinstance(error, FFmpegError):
        try:
            _read(path)
        except OSError as real:
            number = real.errno
        else:
            return
    raise AccessError(number, os.strerror(number), str(path)) from error


def _read(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
