"""Retrieval between two modalities: how often the right partner is among the best k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def recall_at(similarity: np.ndarray, matches: np.ndarray, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """R@k in per cent.

    Args:
        similarity: (Q, G) of queries and gallery.
        matches: (Q, G) bool: which gallery items are right for a query; a query without any does not count.
    Returns:
        `R@k` for each k.  Ties count against the query: a wrong item that is as close as the right one is before it,
        so features that are all the same find nothing.
    Raises:
        ValueError: the shapes differ, no query has a match, or a similarity is NaN or infinite.
    """
    similarity, matches = np.asarray(similarity), np.asarray(matches, dtype=bool)
    if similarity.shape != matches.shape or similarity.ndim != 2:
        raise ValueError(f"similarity {similarity.shape} and matches {matches.shape}: expected two of one shape (Q, G)")
    if bad := int((~np.isfinite(similarity)).sum()):
        raise ValueError(f"{bad} of {similarity.size} similarities are NaN or infinite, so nothing can be ranked")
    asked = matches.any(axis=1)
    if not asked.any():
        raise ValueError("no query has a match in the gallery")
    best = np.where(matches, similarity, -np.inf).max(axis=1, keepdims=True)
    before = ((similarity >= best) & ~matches).sum(axis=1)[asked]
    return {f"R@{k}": 100.0 * float((before < k).mean()) for k in ks}


def both_ways(similarity: np.ndarray, ks: Sequence[int] = (1, 5)) -> dict[str, dict[str, float]]:
    """R@k of row i finding column i, and the other way round."""
    own = np.eye(len(similarity), dtype=bool)
    return {"rows": recall_at(similarity, own, ks), "columns": recall_at(np.asarray(similarity).T, own, ks)}
