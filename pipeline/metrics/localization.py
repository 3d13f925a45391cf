"""Temporal event detection on UnAV-100: mean average precision over tIoU thresholds, and soft-NMS.

Detections of many videos are a few flat arrays (`Detections`); classes and videos are small integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: tIoU 0.1, 0.2, ... 0.9, as the public evaluation makes them.
THRESHOLDS = np.linspace(0.1, 0.9, 9)
#: Two annotations closer than this at both ends are one, seconds.
DUPLICATE_S = 1e-3


@dataclass(frozen=True)
class Detections:
    """Intervals with a class, all arrays (n,).

    Args:
        video: int, index of the video.
        label: int, class.
        start_s, end_s: float, from the start of the video.
        score: float, higher is surer; None for ground truth.
    """

    video: np.ndarray
    label: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    score: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("video", np.int64),
            ("label", np.int64),
            ("start_s", float),
            ("end_s", float),
            ("score", float),
        ):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(value, dtype=kind))
        lengths = {len(value) for value in (self.video, self.label, self.start_s, self.end_s)}
        if self.score is not None:
            lengths.add(len(self.score))
        if len(lengths) != 1:
            raise ValueError(f"arrays of different lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: np.ndarray) -> Detections:
        """Some of the rows."""
        score = None if self.score is None else self.score[rows]
        return Detections(self.video[rows], self.label[rows], self.start_s[rows], self.end_s[rows], score)


def without_duplicates(truth: Detections) -> Detections:
    """Ground truth without repeats of one class in one video with both ends within `DUPLICATE_S`; keeps the first."""
    order = np.lexsort((np.arange(len(truth)), truth.start_s, truth.label, truth.video))
    keep = np.ones(len(truth), dtype=bool)
    # Runs of equal video and class are short (a video has tens of events), so each is compared with all before it.
    same = (np.diff(truth.video[order]) == 0) & (np.diff(truth.label[order]) == 0)
    for group in np.split(order, np.flatnonzero(~same) + 1):
        group = np.sort(group)
        near = (np.abs(truth.start_s[group][:, None] - truth.start_s[group]) <= DUPLICATE_S) & (
            np.abs(truth.end_s[group][:, None] - truth.end_s[group]) <= DUPLICATE_S
        )
        for position in range(1, len(group)):
            keep[group[position]] = not (near[position, :position] & keep[group[:position]]).any()
    return truth.take(np.flatnonzero(keep))


def average_precision(
    truth: Detections, found: Detections, thresholds: np.ndarray = THRESHOLDS, reference_ids: bool = False
) -> dict[int, np.ndarray]:
    """Average precision of every class of the ground truth.

    Each prediction, in order of falling score, takes the free true event of its video and class with the largest tIoU,
    if that reaches the threshold; ties of score go by position.  AP is the area under the monotone precision envelope.

    Args:
        reference_ids: reproduce the public code's trap: classes of the ground truth are renumbered 0..K-1, predicted
            classes that the ground truth lacks keep their number and may collide.  By default they are ignored.
    Returns:
        class -> (len(thresholds),) float64; 0 for a class that is never predicted.
    """
    if found.score is None:
        raise ValueError("predictions need scores")
    truth = without_duplicates(truth)
    classes = np.unique(truth.label)
    if reference_ids:
        known = np.isin(found.label, classes)
        label = np.where(known, np.searchsorted(classes, found.label), found.label)
        found = Detections(found.video, label, found.start_s, found.end_s, found.score)
        truth = Detections(truth.video, np.searchsorted(classes, truth.label), truth.start_s, truth.end_s)
        names, classes = classes, np.arange(len(classes))
    else:
        names = classes
    found = found.take(np.flatnonzero(np.isin(found.label, classes)))
    found = found.take(np.argsort(-found.score, kind="stable"))
    hits = _matches(truth, found, np.asarray(thresholds))
    return {
        int(name): _area(hits[found.label == label], int((truth.label == label).sum()))
        for name, label in zip(names, classes, strict=True)
    }


def mean_average_precision(
    truth: Detections, found: Detections, thresholds: np.ndarray = THRESHOLDS, reference_ids: bool = False
) -> tuple[np.ndarray, float]:
    """mAP at every threshold, and its mean over the thresholds; fractions, not per cent."""
    table = np.stack(list(average_precision(truth, found, thresholds, reference_ids).values()))
    per_threshold = table.mean(axis=0)
    return per_threshold, float(per_threshold.mean())


def _matches(truth: Detections, found: Detections, thresholds: np.ndarray) -> np.ndarray:
    """(n, K) bool: whether each prediction, sorted by score, is a true positive at each threshold.

    Predictions of different videos or classes never compete, so the first of every (video, class) are matched together,
    then the second, and so on.
    """
    hits = np.zeros((len(found), len(thresholds)), dtype=bool)
    if not len(truth) or not len(found):
        return hits
    span = int(max(truth.label.max(), found.label.max())) + 1
    groups, of_truth = np.unique(truth.video * span + truth.label, return_inverse=True)
    slot = _rank(of_truth)
    width = int(slot.max()) + 1
    start, end = np.full((len(groups), width), np.nan), np.full((len(groups), width), np.nan)
    start[of_truth, slot], end[of_truth, slot] = truth.start_s, truth.end_s
    key = found.video * span + found.label
    of_found = np.minimum(np.searchsorted(groups, key), len(groups) - 1)
    rows = np.flatnonzero(groups[of_found] == key)
    of_found = of_found[rows]
    turn = _rank(of_found)
    taken = np.zeros((len(thresholds), len(groups), width), dtype=bool)
    for number in range(int(turn.max()) + 1 if len(turn) else 0):
        now = turn == number
        row, group = rows[now], of_found[now]
        overlap = _tiou(found.start_s[row][:, None], found.end_s[row][:, None], start[group], end[group])
        free = np.where(taken[:, group], -1.0, np.nan_to_num(overlap, nan=-1.0)[None])
        best = free.argmax(axis=2)
        hit = np.take_along_axis(free, best[..., None], axis=2)[..., 0] >= thresholds[:, None]
        level, place = np.nonzero(hit)
        taken[level, group[place], best[level, place]] = True
        hits[row] = hit.T
    return hits


def _rank(group: np.ndarray) -> np.ndarray:
    """Position of each row among the rows of its group, in order of appearance."""
    order = np.argsort(group, kind="stable")
    first = np.concatenate([[True], np.diff(group[order]) != 0]) if len(group) else np.zeros(0, dtype=bool)
    begin = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - begin
    return rank


def _tiou(start_a: np.ndarray, end_a: np.ndarray, start_b: np.ndarray, end_b: np.ndarray) -> np.ndarray:
    shared = np.clip(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0, None)
    union = (end_a - start_a) + (end_b - start_b) - shared
    return np.divide(shared, union, out=np.zeros(np.broadcast(shared, union).shape), where=union != 0)


def _area(hits: np.ndarray, positives: int) -> np.ndarray:
    """Area under the precision envelope at every change of recall, per threshold; (n, K) bool -> (K,)."""
    if len(hits) == 0:
        return np.zeros(hits.shape[1])
    true = hits.cumsum(axis=0)
    precision = true / np.arange(1, len(hits) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return np.where(hits, envelope, 0.0).sum(axis=0) / positives


def soft_nms(
    segments: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    sigma: float = 0.4,
    min_score: float = 0.001,
    most: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft-NMS per class, best `most` of a video.

    The best interval is kept, and every other of its class is multiplied by exp(-tIoU^2 / sigma), then dropped below
    `min_score`; and again.  Kept scores of a class never rise, so picking the best over all classes gives the same
    result as suppressing each class by itself and merging.  `min_score` never drops a class's first pick.

    Args:
        segments: (n, 2) start and end; lengths get +1e-6, as in the public code.
        scores: (n,) floats.
        labels: (n,) classes.
    Returns:
        Positions of the kept intervals, best first, and their scores.
    """
    segments, labels = np.asarray(segments, dtype=float), np.asarray(labels)
    left = np.array(scores, dtype=float)
    alive = np.ones(len(left), dtype=bool)
    length = segments[:, 1] - segments[:, 0] + 1e-6
    kept: list[int] = []
    values: list[float] = []
    while len(kept) < most and alive.any():
        best = int(np.where(alive, left, -np.inf).argmax())
        kept.append(best)
        values.append(float(left[best]))
        alive[best] = False
        rivals = np.flatnonzero(alive & (labels == labels[best]))
        shared = np.minimum(segments[rivals, 1], segments[best, 1]) - np.maximum(segments[rivals, 0], segments[best, 0])
        shared = np.clip(shared + 1e-6, 0, None)
        tiou = shared / (length[rivals] + length[best] - shared)
        left[rivals] *= np.exp(-(tiou**2) / sigma)
        alive[rivals] = left[rivals] >= min_score
    return np.array(kept, dtype=np.int64), np.array(values)
