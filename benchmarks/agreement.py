"""How far two programs' rows for one clip are from each other, and what still counts as the same."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Largest difference relative to the largest value, for fp32, and smallest cosine of two rows otherwise.
TOLERANCE, COSINE = 1e-4, 0.999
# librosa reads mp4 through 16-bit samples, our default decodes to float: values differ by 2e-4.
TOLERANCE_OF = {"vggish": 1e-3}


def compare(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Largest difference relative to the largest value, and smallest cosine of two rows.

    Raises:
        ValueError: shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"ours is {ours.shape}, theirs is {theirs.shape}")
    first, second = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (ours, theirs))
    relative = float(np.abs(first - second).max() / max(np.abs(second).max(), 1e-30))
    return relative, float(cosines(first, second).min())


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(T,) of two (T, d) float64, row by row."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = (ours * theirs).sum(axis=1)
    # Two rows of zeros point the same way; a row of zeros and another do not.
    return np.where(norms > 0, products / np.maximum(norms, 1e-30), (ours == theirs).all(axis=1))


def agreement(name: str, precision: str, relative: float, cosine: float) -> dict[str, Any]:
    """The two numbers of `compare`, and whether they pass for equal at this precision."""
    limit = TOLERANCE_OF.get(name, TOLERANCE)
    equal = relative <= limit if precision == "fp32" else cosine >= COSINE
    return {"relative": relative, "cosine": cosine, "equal": equal}
