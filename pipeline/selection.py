"""Which clips of a manifest can be used: decided before anything is read, the others counted by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore


class LabelReader(Protocol):
    """Pseudo-labels of single modalities; `pipeline.labels.LabelStore` is one."""

    classes: tuple[str, ...]

    def outcomes(self, modality: str) -> dict[str, str]:
        """Clip id -> `ok`, or why it has no labels."""
        ...

    def read(self, clip_id: str, modality: str) -> np.ndarray:
        """(T, C) 0 and 1 of one clip; `modality` is `audio` or `visual`."""
        ...


@dataclass(frozen=True)
class Selection:
    """The clips of a manifest that have rows under all wanted keys.

    Args:
        keys: stream -> key of the store.
        shapes: stream -> shape of one clip, (T, *row).
        segments: label rows of a clip; one per second.
        rows: split -> row numbers of the manifest, in manifest order.
        store_rows: manifest row -> row of the store.
        excluded: split -> reason -> number of clips; reasons are `stream: outcome`.
    """

    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    segments: int
    rows: dict[str, np.ndarray]
    store_rows: np.ndarray
    excluded: dict[str, dict[str, int]] = field(default_factory=dict)

    def check_rows(self, streams: tuple[str, ...]) -> None:
        """That these streams have a row for each label segment.

        Raises:
            ValueError: some have other numbers of rows; all are named.
        """
        wrong = {stream: self.shapes[stream][0] for stream in streams if self.shapes[stream][0] != self.segments}
        if wrong:
            found = ", ".join(f"{stream!r} has {rows} rows ({self.keys[stream]})" for stream, rows in wrong.items())
            raise ValueError(
                f"a clip has {self.segments} label segments, one a second, but of the streams {found}; give features "
                f"with one row a second: {', '.join(f'--{stream}' for stream in wrong)}"
            )

    def coverage(self) -> dict[str, dict]:
        """Per split: clips asked for, clips used, and the others by reason."""
        return {
            split: {
                "clips": len(rows) + sum(self.excluded.get(split, {}).values()),
                "used": len(rows),
                "excluded": self.excluded.get(split, {}),
            }
            for split, rows in self.rows.items()
        }


def select(
    manifest: Manifest,
    store: FeatureStore,
    features: dict[str, str],
    splits: tuple[str, ...],
    labels: LabelReader | None = None,
    labelled: tuple[str, ...] = ("train",),
) -> Selection:
    """Find the usable clips of each split.

    Args:
        features: stream -> key or `encoder:recipe` name.
        splits: in which clips are wanted; others are ignored.
        labels: pseudo-labels that a clip of the splits `labelled` needs as well.
        labelled: `train`, or every split where the network itself reads pseudo-labels.
    Raises:
        ValueError: lists every feature that the store lacks with the command that makes it; no common clip; clips of
            different lengths; a split without any usable clip.
    """
    keys, problems = {}, []
    for stream, name in features.items():
        try:
            keys[stream] = store.key(name)
        except ValueError as error:
            problems.append(f"stream {stream!r}: {error}")
    if problems:
        raise ValueError("\n  ".join(["the store lacks features that the model reads:", *problems]))
    position = {clip_id: row for row, clip_id in enumerate(store.ids)}
    store_rows = np.array([position.get(clip_id, -1) for clip_id in manifest.ids], dtype=np.int64)
    if (store_rows < 0).all():
        raise ValueError(
            f"{store.path} holds features of {store.facts['dataset']} and none of the {len(manifest)} clips of this "
            f"manifest ({manifest.dataset}); give the store that was made from it"
        )
    shapes = {stream: (store.plan(key).segments, *store.spec(key).shape) for stream, key in keys.items()}
    reason = _reasons(store, keys, shapes, store_rows)
    if labels is not None:
        _need_labels(manifest, labels, labelled, reason)
    rows, excluded = {}, {}
    for split in splits:
        members = np.array([row for row, clip in enumerate(manifest.clips) if clip.split == split], dtype=np.int64)
        bad = [reason[row] for row in members if reason[row]]
        rows[split] = np.array([row for row in members if not reason[row]], dtype=np.int64)
        excluded[split] = dict(Counter(bad))
        if len(rows[split]) == 0:
            why = ", ".join(f"{count} x {name}" for name, count in excluded[split].items()) or "it has no clips at all"
            have = ", ".join(f"{name or '(none)'} {count}" for name, count in manifest.splits().items())
            problems.append(f"split {split!r} has no usable clip: {why}.  Splits of the manifest: {have}")
    if problems:
        raise ValueError("\n  ".join(["nothing to train or score on:", *problems]))
    return Selection(keys, shapes, _segments(manifest, shapes, rows), rows, store_rows, excluded)


def _reasons(
    store: FeatureStore, keys: dict[str, str], shapes: dict[str, tuple[int, ...]], store_rows: np.ndarray
) -> list[str]:
    """Per manifest row: why it cannot be used, or nothing."""
    reason = ["" if row >= 0 else "not in the store" for row in store_rows]
    for stream, key in keys.items():
        outcome = list(store.outcomes(key).values())
        length = store.lengths(key)
        for row, place in enumerate(store_rows):
            if reason[row]:
                continue
            if outcome[place] != "ok":
                reason[row] = f"{stream}: {outcome[place]} ({MEANING[outcome[place]]})"
            elif length[place] != shapes[stream][0]:
                reason[row] = f"{stream}: fewer rows than the longest clip"
    return reason


def _need_labels(manifest: Manifest, labels: LabelReader, splits: tuple[str, ...], reason: list[str]) -> None:
    for modality in ("audio", "visual"):
        outcomes = labels.outcomes(modality)
        for row, clip in enumerate(manifest.clips):
            if clip.split not in splits or reason[row]:
                continue
            outcome = outcomes.get(clip.id, "not in the label store")
            if outcome != "ok":
                reason[row] = f"{modality} pseudo-labels: {outcome}"


def _segments(manifest: Manifest, shapes: dict[str, tuple[int, ...]], rows: dict[str, np.ndarray]) -> int:
    used = [manifest.clips[row].duration_s for members in rows.values() for row in members]
    lengths = {round(duration_s) for duration_s in used if duration_s is not None}
    if len(lengths) > 1:
        raise ValueError(
            f"clips last {min(lengths)} to {max(lengths)} s; AVE and AVVP networks need clips of one length"
        )
    return lengths.pop() if lengths else max(shape[0] for shape in shapes.values())
