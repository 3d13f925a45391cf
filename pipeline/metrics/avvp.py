"""AVVP F-scores on LLP (Tian et al. 2020): segment level and event level, for audio, visual and audio-visual events.

Grids are (N, T, C) zeros and ones: clip, one-second segment, class.  An audio-visual event is where both grids are one.
Everything is counted over whole splits at once; only the mean over clips at the end is per clip, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Columns of every table of results, in the order in which papers print them.
COLUMNS = ("A", "V", "AV", "Type", "Event")


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, each (N, C)."""

    hits: np.ndarray
    false: np.ndarray
    missed: np.ndarray

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.false + other.false, self.missed + other.missed)

    def f_scores(self) -> np.ndarray:
        """(N,) F-score of each clip: the mean over classes that were predicted or are there; 1 if there is none."""
        total = 2 * self.hits + self.false + self.missed
        per_class = np.divide(2 * self.hits, total, out=np.zeros(total.shape), where=total > 0)
        present = (total > 0).sum(axis=1)
        return np.where(present > 0, per_class.sum(axis=1) / np.maximum(present, 1), 1.0)


def decide(video: np.ndarray, frames: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Grid of one modality from probabilities; both comparisons are inclusive.

    Args:
        video: (N, C) probability that the clip holds the class, in any modality.
        frames: (N, T, C) probability per segment.
    Returns:
        (N, T, C) bool.
    """
    return (np.asarray(frames) >= threshold) & (np.asarray(video) >= threshold)[:, None, :]


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of ones of one row as half-open intervals.

    >>> runs(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 1]))
    [(0, 2), (3, 4), (6, 10)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(row) > 0, [0]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def segment_counts(predicted: np.ndarray, truth: np.ndarray) -> Counts:
    """Counts over segments, per clip and class."""
    predicted, truth = _grids(predicted, truth)
    hits = (predicted & truth).sum(axis=1)
    return Counts(hits, predicted.sum(axis=1) - hits, truth.sum(axis=1) - hits)


def event_counts(predicted: np.ndarray, truth: np.ndarray, overlap: float = 0.5) -> Counts:
    """Counts over events, the maximal runs of a row, per clip and class.

    A predicted event is a hit if its intersection over union with some true event reaches `overlap` (inclusive), else
    it is false; a true event that no predicted one reaches is missed.  Runs of one row neither overlap nor touch, so at
    0.5 a match is one to one.
    """
    predicted, truth = _grids(predicted, truth)
    clips, _, classes = predicted.shape
    found, found_row, found_length = _run_numbers(predicted)
    real, real_row, real_length = _run_numbers(truth)
    both = (found >= 0) & (real >= 0)
    pairs, shared = np.unique(found[both] * max(len(real_row), 1) + real[both], return_counts=True)
    of_found, of_real = pairs // max(len(real_row), 1), pairs % max(len(real_row), 1)
    close = shared / (found_length[of_found] + real_length[of_real] - shared) >= overlap
    hit = np.zeros(len(found_row), dtype=bool)
    hit[of_found[close]] = True
    reached = np.zeros(len(real_row), dtype=bool)
    reached[of_real[close]] = True

    def per_class(rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows, minlength=clips * classes).reshape(clips, classes)

    return Counts(per_class(found_row[hit]), per_class(found_row[~hit]), per_class(real_row[~reached]))


def f_scores(
    audio: np.ndarray, visual: np.ndarray, true_audio: np.ndarray, true_visual: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """F-scores of every clip.

    Args:
        audio, visual, true_audio, true_visual: (N, T, C) grids.
    Returns:
        `segment` and `event`, each with (N,) arrays `A`, `V`, `AV` and `Event` in 0..1.  `Event` pools the counts of
        audio and visual events per class and leaves the audio-visual grid out.
    """
    found = {}
    for level, count in (("segment", segment_counts), ("event", event_counts)):
        a, v = count(audio, true_audio), count(visual, true_visual)
        both = count(np.logical_and(audio, visual), np.logical_and(true_audio, true_visual))
        found[level] = {
            "A": a.f_scores(),
            "V": v.f_scores(),
            "AV": both.f_scores(),
            "Event": (a + v).f_scores(),
        }
    return found


def scores(
    audio: np.ndarray, visual: np.ndarray, true_audio: np.ndarray, true_visual: np.ndarray
) -> dict[str, dict[str, float]]:
    """The table of a paper: per cent, mean over clips, columns `COLUMNS` for `segment` and `event`.

    `Type` is the mean of A, V and AV.  Model selection uses `["segment"]["Type"]`.
    """
    if len(audio) == 0:
        raise ValueError("no clip to score")
    table = {}
    for level, columns in f_scores(audio, visual, true_audio, true_visual).items():
        means = {name: 100.0 * float(values.mean()) for name, values in columns.items()}
        means["Type"] = (means["A"] + means["V"] + means["AV"]) / 3
        table[level] = {name: means[name] for name in COLUMNS}
    return table


def label_only(weak: np.ndarray, true_audio: np.ndarray, true_visual: np.ndarray) -> dict[str, dict]:
    """Scores that need no feature: what a model has to beat.

    Args:
        weak: (N, C) clip-level labels of the scored split.
    Returns:
        `nothing`: no event anywhere.  `weak label everywhere`: every labelled class in all segments of both modalities,
        which needs the labels of the test set.
    """
    everywhere = np.broadcast_to(np.asarray(weak)[:, None, :] > 0, np.shape(true_audio))
    nothing = np.zeros(np.shape(true_audio), dtype=bool)
    return {
        "nothing": scores(nothing, nothing, true_audio, true_visual),
        "weak label everywhere": scores(everywhere, everywhere, true_audio, true_visual),
    }


def _grids(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.ndim != 3 or predicted.shape != truth.shape:
        raise ValueError(f"grids {predicted.shape} and {truth.shape}: expected two of the same shape (N, T, C)")
    return predicted > 0, truth > 0


def _run_numbers(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the run that each cell belongs to (-1 outside), row (clip * C + class) and length of each run."""
    clips, segments, classes = grid.shape
    rows = np.zeros((clips * classes, segments + 1), dtype=np.int8)  # a zero column keeps the rows apart
    rows[:, 1:] = grid.transpose(0, 2, 1).reshape(-1, segments)
    starts = np.diff(rows, axis=1) == 1
    on = rows[:, 1:] > 0
    numbers = np.where(on, np.cumsum(starts.ravel()).reshape(on.shape) - 1, -1)
    count = int(starts.sum())
    return numbers, np.nonzero(starts)[0], np.bincount(numbers[on], minlength=count)
