"""Where clips lie in their YouTube videos, for data sets whose annotations do not say.

AudioSet's segment lists hold every AVE clip:        UnAV-100's `download_video.csv`:

    # Segments csv created Sun Mar  5 10:54:31 2017      72f67ednp7w,30.0,77.68
    # YTID, start_seconds, end_seconds, positive_labels
    --PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

from pipeline.datasets.lines import is_youtube_id, numbered_lines
from pipeline.manifest import Clip, ManifestError


def read_offsets(paths: Iterable[Path]) -> dict[str, tuple[float, float]]:
    """Start and end in seconds by video id, of lists `id,start,end[,more]`; lines that begin with `#` are comments.

    Raises:
        ManifestError: lists unreadable lines, missing files, and ids with two different windows.
    """
    found: dict[str, tuple[float, float]] = {}
    problems: list[str] = []
    for path in paths:
        if not path.is_file():
            problems.append(f"{path}: no such file")
        for place, line in numbered_lines(path, problems):
            if line.lstrip().startswith("#"):
                continue
            fields = [field.strip() for field in line.split(",", 3)]
            try:
                video, start_s, end_s = fields[0], float(fields[1]), float(fields[2])
            except (IndexError, ValueError):
                problems.append(f"{place}: expected id,start,end in seconds: {line[:80]!r}")
                continue
            if not is_youtube_id(video) or not 0 <= start_s < end_s < math.inf:
                problems.append(f"{place}: expected an 11-character id and an interval: {line[:80]!r}")
            elif found.setdefault(video, (start_s, end_s)) != (start_s, end_s):
                problems.append(f"{place}: {video} is listed before with {found[video]}")
    if problems:
        raise ManifestError("lists of offsets", problems)
    return found


def apply_offsets(clips: Iterable[Clip], offsets: dict[str, tuple[float, float]]) -> list[Clip]:
    """The clips, with the start of those that have none taken from the lists.

    A window shorter than the clip (AudioSet segments at the end of a video) shortens the clip.
    """
    placed = []
    for clip in clips:
        window = offsets.get(clip.source_id)
        if clip.start_s is None and window is not None:
            length_s = window[1] - window[0]
            duration_s = length_s if clip.duration_s is None else min(clip.duration_s, length_s)
            clip = dataclasses.replace(clip, start_s=window[0], duration_s=duration_s)
        placed.append(clip)
    return placed
