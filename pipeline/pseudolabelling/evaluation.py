"""How good pseudo-labels are: against dense truth, against guesses, and one modality against the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.datasets.llp import weak_labels
from pipeline.labels import MODALITIES, LabelStore
from pipeline.manifest import Manifest
from pipeline.metrics import avvp
from pipeline.pseudolabelling.truth import true_rows

_SHUFFLES = 20


def evaluate(manifest: Manifest, labels: LabelStore, splits: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores of every split that has dense labels, row by row on the grid of the labels.

    Args:
        splits: which to look at; None takes all whose clips have events.
    Returns:
        split -> see `split_scores`; clips without labels are left out and counted.
    """
    known = set(labels.store.ids)
    usable = {
        clip.id: clip.id in known and all(labels.has(clip.id, modality) for modality in labels.keys)
        for clip in manifest.clips
    }
    found = {}
    for split in splits if splits is not None else manifest.splits():
        clips = manifest.split(split)
        used = [clip for clip in clips if usable[clip.id]]
        if not used or not any(clip.events for clip in clips):
            continue
        predicted, truth, inside = {}, {}, {}
        for modality in labels.keys:
            grids = [labels.labels(clip.id, modality) for clip in used]
            segments = max(len(rows) for rows in grids)
            times_s = labels.times(modality, segments)
            true = [
                true_rows(clip, labels.classes, modality, times_s[: len(rows)])
                for clip, rows in zip(used, grids, strict=True)
            ]
            predicted[modality], truth[modality] = _stack(grids, segments), _stack(true, segments)
            inside[modality] = np.arange(segments) < np.array([len(rows) for rows in grids])[:, None]
        weak = weak_labels(used, manifest.classes)
        found[split] = {"clips": len(clips), "scored": len(used)} | split_scores(
            predicted, truth, weak, inside, labels.classes
        )
    return found


def _stack(rows: list[np.ndarray], segments: int) -> np.ndarray:
    stacked = np.zeros((len(rows), segments, rows[0].shape[1]), dtype=np.uint8)
    for place, values in enumerate(rows):
        stacked[place, : len(values)] = values
    return stacked


def split_scores(
    predicted: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    weak: np.ndarray,
    inside: dict[str, np.ndarray],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Everything about one split.

    Args:
        predicted, truth: modality -> (N, T, C) 0 and 1.
        weak: (N, C) clip-level labels.
        inside: modality -> (N, T) segments that the clips have.
    Returns:
        `table`: the AVVP table, where both modalities are labelled on one grid; `guesses`: the same for guesses; `f`:
        per modality
        the mean over classes of segment and event F, of the labels and of the guesses; `classes`: per modality and
        class; `agreement`, on one grid too; `coverage`.
    """
    guesses = _guesses(predicted, truth, weak, inside)
    found: dict[str, Any] = {
        "f": {
            modality: {"labels": _mean_f(grid, truth[modality])}
            | {name: _mean_f(guess[modality], truth[modality]) for name, guess in guesses.items()}
            | {"chance": _chance(grid, truth[modality])}
            for modality, grid in predicted.items()
        },
        "classes": {modality: per_class(grid, truth[modality], classes) for modality, grid in predicted.items()},
        "coverage": {modality: _coverage(grid, inside[modality]) for modality, grid in predicted.items()},
    }
    if set(predicted) == set(MODALITIES) and np.array_equal(inside["audio"], inside["visual"]):
        pair = truth["audio"], truth["visual"]
        found["table"] = avvp.scores(predicted["audio"], predicted["visual"], *pair)
        found["guesses"] = {
            name: avvp.scores(guess["audio"], guess["visual"], *pair) for name, guess in guesses.items()
        }
        found["agreement"] = _agreement(predicted["audio"], predicted["visual"])
    return found


def per_class(grid: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Class -> segment precision, recall and F, event F, and the numbers of predicted and true segments.

    Counts are summed over all clips; None where nothing was predicted or nothing is there.
    """
    segment, event = avvp.segment_counts(grid, truth), avvp.event_counts(grid, truth)
    hits, false, missed = (counts.sum(axis=0) for counts in (segment.hits, segment.false, segment.missed))
    event_f = _f(event)
    return {
        name: {
            "precision": _ratio(hits[c], hits[c] + false[c]),
            "recall": _ratio(hits[c], hits[c] + missed[c]),
            "f": _ratio(2 * hits[c], 2 * hits[c] + false[c] + missed[c]),
            "event_f": None if np.isnan(event_f[c]) else float(event_f[c]),
            "predicted": int(hits[c] + false[c]),
            "true": int(hits[c] + missed[c]),
        }
        for c, name in enumerate(classes)
    }


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _f(counts: avvp.Counts) -> np.ndarray:
    hits, false, missed = (values.sum(axis=0) for values in (counts.hits, counts.false, counts.missed))
    total = 2 * hits + false + missed
    return np.divide(2.0 * hits, total, out=np.full(len(total), np.nan), where=total > 0)


def _mean_f(grid: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Per cent, mean over the classes that are predicted or there; counts summed over clips."""
    means = {}
    for level, count in (("segment", avvp.segment_counts), ("event", avvp.event_counts)):
        f = _f(count(grid, truth))
        means[level] = 100.0 * float(np.nanmean(f)) if np.isfinite(f).any() else 0.0
    return means


def _chance(grid: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The same labels dealt out to the wrong clips: what their rates alone give, the mean of 20 seeded shuffles."""
    rng = np.random.default_rng(0)
    scores = [_mean_f(grid[rng.permutation(len(grid))], truth) for _ in range(_SHUFFLES)]
    return {level: float(np.mean([score[level] for score in scores])) for level in ("segment", "event")}


def _guesses(
    predicted: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    weak: np.ndarray,
    inside: dict[str, np.ndarray],
) -> dict[str, dict[str, np.ndarray]]:
    """What labels have to beat.

    `majority`: each modality's most frequent true class in every segment; it knows the truth's counts.
    `all classes`: everything everywhere.  `weak label`: every class of the clip's label everywhere, which only labels
    masked by it may be compared with.
    """
    found: dict[str, dict[str, np.ndarray]] = {"majority": {}, "all classes": {}, "weak label": {}}
    for modality, grid in predicted.items():
        most = np.zeros(grid.shape[2], dtype=bool)
        most[int(truth[modality].sum(axis=(0, 1)).argmax())] = True
        there = inside[modality][..., None]
        found["majority"][modality] = there & most
        found["all classes"][modality] = np.broadcast_to(there, grid.shape)
        found["weak label"][modality] = there & (weak[:, None, :] > 0)
    return found


def _coverage(grid: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Share of segments with any label, share of clips with any, and labels per segment."""
    return {
        "segments": float(grid.any(axis=2)[inside].mean()),
        "clips": float(grid.any(axis=(1, 2)).mean()),
        "labels_per_segment": float(grid.sum(axis=2)[inside].mean()),
    }


def _agreement(audio: np.ndarray, visual: np.ndarray) -> dict[str, float | None]:
    """Intersection over union of the two grids, and the share of each modality's labels that the other confirms."""
    both = int(np.logical_and(audio, visual).sum())
    return {
        "intersection_over_union": _ratio(both, int(np.logical_or(audio, visual).sum())),
        "audio_confirmed": _ratio(both, int(audio.sum())),
        "visual_confirmed": _ratio(both, int(visual.sum())),
    }
