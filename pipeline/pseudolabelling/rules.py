"""From scores to labels: the published decision rules, as pure functions of arrays.

Sources: VALOR, NeurIPS 2023 (Franklin905/VALOR@2677da9); LINK (paper only); LSLD, NeurIPS 2023 (fyyCS/LSLD@d34c988).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MASKS = ("video-label", "none")
#: LSLD writes captions for clips with up to three labels; a clip with more keeps all of them in every segment.
MOST_CANDIDATES = 3


def pool(rows: np.ndarray, per_segment: int) -> np.ndarray:
    """Mean of `per_segment` consecutive rows: (T * n, D) -> (T, D), float64; rows that fill no segment are left out."""
    whole = len(rows) // per_segment * per_segment
    return rows[:whole].astype(np.float64).reshape(-1, per_segment, rows.shape[1]).mean(axis=1)


def score(rows: np.ndarray, text: np.ndarray, scale: float) -> np.ndarray:
    """Logits as CLIP and CLAP publish them: scale x cosine, computed in float64.

    Args:
        rows: (T, D) features of any length.
        text: (C, D) caption embeddings of any length.
        scale: exp of the trained logit scale; 1 gives cosines.
    Returns:
        (T, C) float32; NaN where a row has length 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (scale * (_unit(rows) @ _unit(text).T)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def fire(scores: np.ndarray, thresholds: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """VALOR's decision: strictly greater than the threshold of the class, each class alone.

    Args:
        scores: (T, C), scale included.
        thresholds: (C,).
        allowed: (C,) classes that may fire, the clip's weak labels (VALOR); None lets all (LINK at inference).
    Returns:
        (T, C) uint8.
    """
    # A float32 score against the float64 threshold: thresholds such as 0.1 are not rounded to float32 first.
    fired = np.asarray(scores, dtype=np.float64) > np.asarray(thresholds, dtype=np.float64)
    return (fired if allowed is None else fired & np.asarray(allowed, dtype=bool)).astype(np.uint8)


@dataclass(frozen=True)
class Candidate:
    """A caption of LSLD and the classes that it names."""

    caption: str
    classes: tuple[int, ...]


def candidates(words: Sequence[str], labels: Sequence[int], prefix: str) -> list[Candidate]:
    """LSLD's captions of a clip: every non-empty subset of its labels, the largest first, and `other`.

    Args:
        words: (C) class names in LSLD's wording.
        labels: classes of the clip, ascending; at most three, see `MOST_CANDIDATES`.
        prefix: put before every caption, `other` included.
    Returns:
        In the published order, which decides between equal cosines: the first wins.
    """
    labels = tuple(labels)
    sizes = [len(labels), *range(1, len(labels))]  # "1 and 2 and 3", "1", "2", "3", "1 and 2", ...
    subsets = [subset for size in sizes for subset in itertools.combinations(labels, size)]
    made = [Candidate(prefix + " and ".join(words[index] for index in subset), subset) for subset in subsets]
    return [*made, Candidate(f"{prefix}other", ())]


def choose(cosines: np.ndarray, offered: Sequence[Candidate], classes: int) -> np.ndarray:
    """LSLD's decision: a segment keeps the labels that its best caption names.

    Args:
        cosines: (T, P) of segments and captions.
        offered: the P captions.
        classes: C.
    Returns:
        (T, C) uint8.
    """
    named = np.zeros((len(offered), classes), dtype=np.uint8)
    for row, candidate in enumerate(offered):
        named[row, list(candidate.classes)] = 1
    return named[np.argmax(cosines, axis=1)]
