"""LLP, "Look, Listen and Parse" (Tian et al., ECCV 2020): 11,849 ten-second clips, weak labels, dense on val and test.

Tab-separated files with a header.  `filename` is an 11-character video id, start and end in the source video; ids
contain `_`, so it is split by position:

    filename             event_labels               filename             onset  offset  event_labels
    BjCEufrlXm4_20_30    Speech,Dog                 4YdbENYcIyE_23_33    0      4       Baby_cry_infant_cry

Evaluation rows whose filename is no val or test clip are ignored and counted, as every public evaluator does; repairing
them would change published scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.description import Description
from pipeline.datasets.lines import is_youtube_id, numbered_lines
from pipeline.manifest import Clip, Event, Manifest, ManifestError

SEGMENTS = 10
SPLIT_FILES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
EVENT_FILES = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
CLIP_HEADER = "filename\tevent_labels"
EVENT_HEADER = "filename\tonset\toffset\tevent_labels"


def read(description: Description, annotations: Path, accept_checksums: bool = False) -> Manifest:
    """Parse the three clip lists and the two event lists.

    Raises:
        ManifestError: lists everything that is wrong with the files, with file and line.
    """
    versions, problems = description.verify(annotations, accept_checksums)
    known = set(description.classes)
    rows: dict[str, tuple[str, tuple[str, ...]]] = {}
    facts = {"repeated_labels": []}
    for split, name in SPLIT_FILES.items():
        for place, filename, labels in _clip_rows(annotations / name, known, problems):
            if filename in rows:
                problems.append(f"{place}: clip {filename} is listed twice, first in {rows[filename][0]}")
            if len(set(labels)) < len(labels):
                facts["repeated_labels"].append(filename)
            rows.setdefault(filename, (split, tuple(dict.fromkeys(labels))))
    evaluated = {filename for filename, (split, _) in rows.items() if split != "train"}
    events: dict[str, list[Event]] = {}
    for modality, name in EVENT_FILES.items():
        found, counted = _event_rows(annotations / name, modality, known, evaluated, problems)
        for filename, event in found:
            events.setdefault(filename, []).append(event)
        facts[f"{modality}_events"] = counted
    if problems:
        raise ManifestError(f"LLP annotations in {annotations}", problems)
    clips = tuple(
        _clip(filename, split, labels, tuple(events.get(filename, ()))) for filename, (split, labels) in rows.items()
    )
    return Manifest(description.name, clips, description.classes, description.facts | {"annotations": versions} | facts)


def weak_labels(clips: Sequence[Clip], classes: Sequence[str]) -> np.ndarray:
    """Clip-level labels as 0 and 1: (n, C) float32."""
    index = {name: position for position, name in enumerate(classes)}
    labels = np.zeros((len(clips), len(index)), dtype=np.float32)
    for row, clip in enumerate(clips):
        labels[row, [index[label] for label in clip.labels]] = 1
    return labels


def dense_grids(
    clips: Sequence[Clip], classes: Sequence[str], segments: int = SEGMENTS
) -> tuple[np.ndarray, np.ndarray]:
    """What is heard and what is seen in each second, painted from whole-second events.

    Events of modality `both` count in both grids.  The audio-visual grid is the product of the two.

    Returns:
        audio and visual grid, each (n, C, segments) float32 of 0 and 1.
    """
    index = {name: position for position, name in enumerate(classes)}
    grids = np.zeros((2, len(clips), len(index), segments), dtype=np.float32)
    for row, clip in enumerate(clips):
        for event in clip.events:
            seconds = slice(int(event.start_s), int(event.end_s))
            for grid, modality in enumerate(("audio", "visual")):
                if event.modality in (modality, "both"):
                    grids[grid, row, index[event.label], seconds] = 1
    return grids[0], grids[1]


def split_filename(filename: str) -> tuple[str, float, float]:
    """Video id, start and end in seconds of `BjCEufrlXm4_20_30`.

    Raises:
        ValueError: the name is not an 11-character id, `_`, start, `_`, end with end - start = 10.
    """
    video, times = filename[:11], filename[12:].split("_")
    try:
        start_s, end_s = (float(text) for text in times)
    except ValueError:
        start_s = end_s = -1.0
    if not is_youtube_id(video) or filename[11:12] != "_" or start_s < 0 or abs(end_s - start_s - 10) > 1e-6:
        raise ValueError(f"filename {filename!r} is not <11-character id>_<start>_<end> with ten seconds between")
    return video, start_s, end_s


def _clip(filename: str, split: str, labels: tuple[str, ...], events: tuple[Event, ...]) -> Clip:
    video, start_s, _ = split_filename(filename)
    return Clip(filename, video, start_s=start_s, duration_s=10.0, split=split, labels=labels, events=events)


def _table(path: Path, header: str, problems: list[str]) -> list[tuple[str, list[str]]]:
    rows = []
    for number, (place, line) in enumerate(numbered_lines(path, problems)):
        fields = line.split("\t")
        if number == 0:
            if line != header:
                problems.append(f"{place}: header is {line[:80]!r}, expected {header!r}")
        elif len(fields) != header.count("\t") + 1:
            problems.append(
                f"{place}: expected {header.count(chr(9)) + 1} fields separated by tabs, found {len(fields)}"
            )
        else:
            rows.append((place, fields))
    return rows


def _clip_rows(path: Path, known: set[str], problems: list[str]) -> list[tuple[str, str, list[str]]]:
    rows = []
    for place, (filename, text) in _table(path, CLIP_HEADER, problems):
        try:
            split_filename(filename)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        labels = text.split(",")
        problems.extend(f"{place}: label {label!r} is not in the vocabulary" for label in labels if label not in known)
        rows.append((place, filename, labels))
    return rows


def _event_rows(
    path: Path, modality: str, known: set[str], evaluated: set[str], problems: list[str]
) -> tuple[list[tuple[str, Event]], dict[str, object]]:
    """Events of val and test clips; and what was counted: rows, ignored, empty, inverted, exact duplicates."""
    found, ignored, inverted, empty = [], [], [], []
    rows = _table(path, EVENT_HEADER, problems)
    for place, (filename, onset, offset, label) in rows:
        if not (onset.isdecimal() and offset.isdecimal() and int(onset) <= SEGMENTS and int(offset) <= SEGMENTS):
            problems.append(f"{place}: {onset!r} to {offset!r} are no whole seconds within 0 to {SEGMENTS}")
            continue
        if label not in known:
            problems.append(f"{place}: label {label!r} is not in the vocabulary")
        if filename not in evaluated:
            ignored.append(filename)
        elif int(onset) > int(offset):
            inverted.append(filename)
        else:
            if onset == offset:
                empty.append(filename)
            found.append((filename, Event(label, modality, float(onset), float(offset))))
    counted = {
        "rows": len(rows),
        "ignored_rows": len(ignored),
        "ignored_filenames": sorted(set(ignored)),
        "empty_intervals": len(empty),
        "inverted_intervals_dropped": inverted,
        "exact_duplicates": sum(times - 1 for times in Counter(found).values()),
    }
    return found, counted
