"""UnAV-100 (Geng et al., CVPR 2023): 10,790 untrimmed videos of up to a minute, 30,059 audio-visual events.

    {"version": "unav100", "database": {"72f67ednp7w": {"duration": 47.68, "subset": "train", "annotations":
        [{"segment": [13.01, 15.78316], "label": "skateboarding", "label_id": 36}, ...]}, ...}}

Times count from the start of the trimmed file.  Where the trimmed file lies in the YouTube video is said only by
`download_video.csv` (`id,start,end`, no header) of the dataset's download; without it `start_s` is None.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.datasets.description import Description
from pipeline.datasets.lines import is_youtube_id, numbered_lines
from pipeline.manifest import Clip, Event, Manifest, ManifestError

ANNOTATIONS = "unav100_annotations.json"
OFFSETS = "download_video.csv"
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def read(description: Description, annotations: Path, accept_checksums: bool = False) -> Manifest:
    """Parse the annotation json and, where it exists, the table of offsets.

    Raises:
        ManifestError: lists everything that is wrong with the files.
    """
    versions, problems = description.verify(annotations, accept_checksums)
    path = annotations / ANNOTATIONS
    database = _read_json(path, problems)
    offsets = _read_offsets(annotations / OFFSETS, problems)
    ids = {name: index for index, name in enumerate(description.classes)}
    clips = []
    for video, entry in database.items():
        place = f"{path}: video {video}"
        try:
            clips.append(_clip(video, entry, ids, offsets, place, problems))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{place}: unreadable entry ({type(error).__name__}: {error})")
    if problems:
        raise ManifestError(f"UnAV-100 annotations in {annotations}", problems)
    facts = description.facts | {
        "annotations": versions,
        "split_names": {ours: theirs for theirs, ours in SPLITS.items()},
        "offsets_known": sum(clip.start_s is not None for clip in clips),
    }
    return Manifest(description.name, tuple(clips), description.classes, facts)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    repeated: list[str] = []

    def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                repeated.append(key)
            values.setdefault(key, value)
        return values

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=keep_first)
        database = content["database"]
        if not isinstance(database, dict):
            raise TypeError("`database` is no object")
    except json.JSONDecodeError as error:
        problems.append(f"{path}:{error.lineno}: unreadable json at column {error.colno}: {error.msg}")
        return {}
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        problems.append(f"{path}:1: unreadable, expected an object with `database` in it ({error})")
        return {}
    problems.extend(f"{path}: key {key!r} occurs twice in one object" for key in repeated)
    return database


def _read_offsets(path: Path, problems: list[str]) -> dict[str, float]:
    offsets: dict[str, float] = {}
    for place, line in numbered_lines(path, problems):
        try:
            video, start, end = line.split(",")
            if not 0 <= float(start) < float(end) < math.inf:
                raise ValueError("start and end are no interval")
        except ValueError as error:
            problems.append(f"{place}: expected id,start,end in seconds: {line[:80]!r} ({error})")
            continue
        if video in offsets:
            problems.append(f"{place}: video {video} is listed twice")
        offsets.setdefault(video, float(start))
    return offsets


def _clip(
    video: str, entry: dict[str, Any], ids: dict[str, int], offsets: dict[str, float], place: str, problems: list[str]
) -> Clip:
    if not is_youtube_id(video):
        problems.append(f"{place}: no video id (11 letters, digits, _ or -)")
    if entry["subset"] not in SPLITS:
        problems.append(f"{place}: subset {entry['subset']!r} is none of {', '.join(SPLITS)}")
    duration_s = float(entry["duration"])
    events = []
    for number, annotation in enumerate(entry["annotations"]):
        label, label_id = annotation["label"], annotation["label_id"]
        start_s, end_s = (float(value) for value in annotation["segment"])
        if label not in ids:
            problems.append(f"{place}, event {number}: label {label!r} is not in the vocabulary")
        elif ids[label] != label_id:
            problems.append(f"{place}, event {number}: {label!r} has label_id {label_id}, expected {ids[label]}")
        if not 0 <= start_s < end_s <= duration_s:
            problems.append(f"{place}, event {number}: {start_s} to {end_s} s is no interval within {duration_s} s")
        events.append(Event(label, "both", start_s, end_s))
    return Clip(
        id=video,
        source_id=video,
        start_s=offsets.get(video),
        duration_s=duration_s,
        split=SPLITS.get(entry["subset"], entry["subset"]),
        labels=tuple(dict.fromkeys(event.label for event in events)),
        events=tuple(events),
    )
