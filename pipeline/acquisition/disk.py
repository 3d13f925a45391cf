"""Trouble with our own disk, which is no fault of a video and must never be recorded as one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# In ffmpeg's words.  Not EIO: ffmpeg says `Input/output error` of damaged videos too.
_WORDS = {os.strerror(code): code for code in TROUBLE if code != errno.EIO}


def check_error(error: BaseException, path: Path) -> None:
    """Nothing, unless trouble with the disk is behind the error, however deep.

    Args:
        path: what was written or read.
    Raises:
        OSError: the trouble, with the path; it ends the run.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in TROUBLE:
            raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error


def check_words(words: str, path: Path) -> None:
    """Nothing, unless a program says that the disk is in trouble.

    Raises:
        OSError: as `check_error`.
    """
    for text, code in _WORDS.items():
        if text in words:
            raise OSError(code, text, str(path))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that is behind it; yt-dlp keeps causes in attributes of its own."""
    open_, seen = [error], set()
    while open_:
        cause = open_.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        held = (getattr(cause, "exc_info", None) or (None, None))[1]
        open_ += [held, getattr(cause, "cause", None), cause.__cause__, cause.__context__]
