"""AVE segment accuracy: the percentage of one-second segments that get their class, background being a class.

Background is the class after the last event class (28 of 0..28 on AVE).  Two families of models decide differently:
those with a relevance gate take one class per video (`gated`), AVEL scores every segment by itself (`per_segment`).
"""

from __future__ import annotations

import numpy as np

#: What the gate array holds.  `probabilities-as-logits` is what the public weakly supervised CMBS evaluation does: it
#: squashes probabilities once more, so that every segment passes.  It is here to reproduce published numbers.
GATES = ("logits", "probabilities", "probabilities-as-logits")


def gated(gate: np.ndarray, category: np.ndarray, classes: int, gate_is: str = "logits") -> np.ndarray:
    """One class for the event segments of a video, background for the others.

    The comparison is strict: a probability of exactly 0.5, a logit of exactly 0, is background.

    Args:
        gate: (B, T) relevance of each segment.
        category: (B, classes) or (B, classes + 1) scores of the video; with the extra column, background may win, which
            makes the whole video background (the weakly supervised rule).
        classes: number of event classes, 28 on AVE.
        gate_is: one of `GATES`.
    Returns:
        (B, T) int64 class of each segment, `classes` for background.
    """
    gate, category = np.asarray(gate), np.asarray(category)
    if gate_is not in GATES:
        raise ValueError(f"gate_is is {gate_is!r}, known are {', '.join(GATES)}")
    if category.shape[-1] not in (classes, classes + 1) or gate.shape[:1] != category.shape[:1]:
        raise ValueError(
            f"gate {gate.shape} and category {category.shape} do not fit: expected (B, T) and "
            f"(B, {classes}) or (B, {classes + 1})"
        )
    threshold = 0.5 if gate_is == "probabilities" else 0.0
    return np.where(gate > threshold, category.argmax(axis=1)[:, None], classes)


def per_segment(scores: np.ndarray) -> np.ndarray:
    """(B, T) int64 classes from (B, T, classes + 1) scores: AVEL's rule."""
    return np.asarray(scores).argmax(axis=2)


def accuracy(predicted: np.ndarray, target: np.ndarray, batch: int | None = None) -> float:
    """Per cent of segments whose class is right, over all videos together.

    Args:
        predicted: (B, T) classes.
        target: (B, T) classes, or (B, T, classes + 1) one-hot.
        batch: None for the plain share.  A number takes the unweighted mean over batches of so many videos, as the
            public DG-SCT code reports; the videos of a smaller last batch then weigh more.
    """
    predicted, target = np.asarray(predicted), np.asarray(target)
    if target.ndim == 3:
        target = target.argmax(axis=2)
    if predicted.shape != target.shape:
        raise ValueError(f"predictions {predicted.shape} and targets {target.shape} differ in shape")
    if predicted.size == 0:
        raise ValueError("no segment to score")
    right = predicted == target
    if batch is None:
        return 100.0 * float(right.mean())
    return 100.0 * float(np.mean([right[start : start + batch].mean() for start in range(0, len(right), batch)]))


def label_only(target: np.ndarray) -> dict[str, float]:
    """Accuracies that need no feature: what a model has to beat.

    Args:
        target: (B, T, classes + 1) one-hot.
    Returns:
        `always background`; `oracle class, always on` (the right class on every segment of a video, which needs the
        labels of the test set); `best constant` (the most frequent class everywhere); `chance`: a uniform guess.
    """
    target = np.asarray(target)
    counts = target.sum(axis=(0, 1))
    segments = target.shape[0] * target.shape[1]
    return {
        "always background": 100.0 * float(counts[-1]) / segments,
        "oracle class, always on": 100.0 * float(segments - counts[-1]) / segments,
        "best constant": 100.0 * float(counts.max()) / segments,
        "chance": 100.0 / target.shape[2],
    }
