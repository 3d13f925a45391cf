"""AVE (Tian et al., ECCV 2018): 4,143 ten-second clips, one audio-visual event each.

`Annotations.txt` has one line per sample; its number, from 0 and without a header, is the index that every HDF5 file of
the dataset uses, so manifest row i is line i:

    Church bell&RUhOCu3LNXM&good&0&10

Category names hold commas and parentheses; the fields are separated by `&` only.  45 video ids occur more than once,
with different categories: each line is a clip of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.description import Description
from pipeline.datasets.lines import is_youtube_id, numbered_lines
from pipeline.manifest import Clip, Event, Manifest, ManifestError

HEADER = "Category&VideoID&Quality&StartTime&EndTime"
SEGMENTS = 10
CLIP_S = 10.0
SPLITS = ("train", "val", "test")


def read(description: Description, annotations: Path, accept_checksums: bool = False) -> Manifest:
    """Parse `Annotations.txt` and the splits beside it (`*_order.h5`, or `trainSet.txt` and its siblings).

    Raises:
        ManifestError: lists everything that is wrong with the files, with file and line.
    """
    versions, problems = description.verify(annotations, accept_checksums)
    rows = _read_rows(annotations / "Annotations.txt", description.classes, problems)
    orders = _read_orders(annotations, rows, problems)
    split_of = _splits(orders, len(rows), annotations, problems)
    if problems:
        raise ManifestError(f"AVE annotations in {annotations}", problems)
    clips = tuple(
        Clip(
            id=f"{index:04d}_{video}",
            source_id=video,
            duration_s=CLIP_S,
            split=split_of[index],
            labels=(label,),
            events=(Event(label, "both", start, end),),
        )
        for index, (label, video, start, end) in enumerate(rows)
    )
    videos = Counter(clip.source_id for clip in clips)
    facts = description.facts | {
        "annotations": versions,
        "orders": orders,
        "videos": len(videos),
        "rows_of_repeated_videos": len(clips) - len(videos),
        "zero_length_events": [clip.id for clip in clips if clip.events[0].start_s == clip.events[0].end_s],
    }
    return Manifest(description.name, clips, description.classes, facts)


def segment_labels(manifest: Manifest, segments: int = SEGMENTS) -> np.ndarray:
    """One-hot labels of one-second segments, as in `labels.h5`.

    Only events of modality `both` count; what is not covered is background, the column after the last class.

    Returns:
        (N, segments, C + 1) float32; every segment has exactly one 1.

    Raises:
        ValueError: two classes claim one segment, so the dataset is not of AVE's kind.
    """
    index = {name: position for position, name in enumerate(manifest.classes)}
    painted = np.zeros((len(manifest), segments, len(index) + 1), dtype=np.float32)
    events = [
        (row, index[event.label], event.start_s, event.end_s)
        for row, clip in enumerate(manifest.clips)
        for event in clip.events
        if event.modality == "both"
    ]
    if events:
        rows, classes, starts, ends = (np.array(column) for column in zip(*events, strict=True))
        seconds = np.arange(segments)
        inside = (starts[:, None] <= seconds) & (seconds < ends[:, None])
        event, second = np.nonzero(inside)
        painted[rows[event], second, classes[event]] = 1
    painted[..., -1] = painted[..., :-1].sum(axis=2) == 0
    if (crowded := painted.sum(axis=2) > 1).any():
        clip = manifest.clips[int(np.nonzero(crowded)[0][0])]
        raise ValueError(f"clip {clip.id}: two classes in one segment, which one-hot segment labels cannot say")
    return painted


def mil_labels(manifest: Manifest) -> np.ndarray:
    """Clip-level labels, as in `mil_labels.h5`: (N, C + 1) float32.

    The class of the clip's event, also where that event has length zero; background, the last column, only for a clip
    without any audio-visual event (AVE has none).
    """
    index = {name: position for position, name in enumerate(manifest.classes)}
    labels = np.zeros((len(manifest), len(index) + 1), dtype=np.float32)
    for row, clip in enumerate(manifest.clips):
        named = [index[event.label] for event in clip.events if event.modality == "both"]
        labels[row, named or [len(index)]] = 1
    return labels


def _read_rows(path: Path, known: tuple[str, ...], problems: list[str]) -> list[tuple[str, str, float, float]]:
    rows, seen = [], {}
    for place, line in numbered_lines(path, problems):
        if line == HEADER and not rows:
            continue
        fields = line.split("&")
        if len(fields) != 5:
            problems.append(f"{place}: expected 5 fields separated by '&', found {len(fields)}: {line[:80]!r}")
            continue
        label, video, _, start, end = fields
        if label not in known:
            problems.append(f"{place}: category {label!r} is not in the vocabulary")
        if not is_youtube_id(video):
            problems.append(f"{place}: {video!r} is no video id (11 letters, digits, _ or -)")
        if (label, video) in seen:
            problems.append(f"{place}: {video} with category {label!r} is a duplicate of {seen[label, video]}")
        seen.setdefault((label, video), place)
        if not (start.isdecimal() and end.isdecimal() and int(start) <= int(end) <= CLIP_S):
            problems.append(f"{place}: {start!r} to {end!r} is no interval of whole seconds within 0 to 10")
            continue
        rows.append((label, video, float(start), float(end)))
    return rows


def _read_orders(
    annotations: Path, rows: list[tuple[str, str, float, float]], problems: list[str]
) -> dict[str, list[int]]:
    """Row numbers of each list: `train`, `val`, `test` and, where their files exist, `train_match`, ..."""
    orders = {}
    for name in (*SPLITS, *(f"{split}_match" for split in SPLITS)):
        path = annotations / (f"{name}_order.h5" if name in SPLITS else f"{name[:-6]}_order_match.h5")
        if path.is_file():
            orders[name] = _read_order(path, problems)
    if orders or not (annotations / "trainSet.txt").is_file():
        for split in SPLITS:
            if split not in orders:
                problems.append(f"{annotations / f'{split}_order.h5'}: no such file; it says which rows are {split}")
        return orders
    position = {(label, video): index for index, (label, video, _, _) in enumerate(rows)}
    for split in SPLITS:
        orders[split] = []
        path = annotations / f"{split}Set.txt"
        if not path.is_file():
            problems.append(f"{path}: no such file; it says which rows are {split}")
        for place, line in numbered_lines(path, problems):
            if line == HEADER:
                continue
            if (row := position.get(tuple(line.split("&")[:2]))) is None:
                problems.append(f"{place}: no such line in Annotations.txt: {line[:80]!r}")
            else:
                orders[split].append(row)
    return orders


def _read_order(path: Path, problems: list[str]) -> list[int]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file["order"]).astype(np.int64).ravel().tolist()
    except (OSError, KeyError, ValueError) as error:
        problems.append(f"{path}: unreadable, expected HDF5 with an integer array `order` ({error})")
        return []


def _splits(orders: dict[str, Any], count: int, annotations: Path, problems: list[str]) -> dict[int, str]:
    split_of: dict[int, str] = {}
    for split in SPLITS:
        for entry, row in enumerate(orders.get(split, [])):
            place = f"{annotations / f'{split}_order.h5'}: entry {entry}"
            if not 0 <= row < count:
                problems.append(f"{place}: row {row} is not one of the {count} annotation rows")
            elif row in split_of:
                problems.append(f"{place}: row {row} is already in {split_of[row]}")
            split_of.setdefault(row, split)
    missing = [row for row in range(count) if row not in split_of]
    if missing and not problems:
        problems.append(f"{annotations}: {len(missing)} rows are in no split, the first is row {missing[0]}")
    return split_of
