"""Annotation lines with their place: what every text parser of this package needs, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def numbered_lines(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, text) for every line that is not blank; a missing file yields nothing.

    A line that is not UTF-8, or holds a null character, is added to `problems` and skipped.
    """
    if not path.is_file():
        return
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        place = f"{path}:{number}"
        try:
            text = raw.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            problems.append(f"{place}: unreadable, not UTF-8 text: {raw[:40]!r}")
            continue
        if "\0" in text:
            problems.append(f"{place}: unreadable, holds a null character")
        elif text.strip():
            yield place, text


def is_youtube_id(text: str) -> bool:
    """Whether the text has the form of a YouTube video id: eleven letters, digits, `_` or `-`."""
    return len(text) == 11 and text.isascii() and text.replace("_", "a").replace("-", "a").isalnum()
