"""Mean, variance, histograms and principal components of a feature, from blocks that are read one at a time.

Each block is reduced to sums that can be added up in any order: count, mean, second moments about the mean.  They are
merged as in Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance" (1983), in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.store import FeatureStore

#: Values that are widened to float64 at once: memory follows this, not the block.
VALUES_AT_ONCE = 1 << 22


@dataclass
class Moments:
    """Sums over rows of D values.

    Args:
        rows: number of rows n.
        mean: (D,) float64.
        squares: (D,) float64, sum of squared differences from the mean.
        scatter: (D, D) float64, sum of outer products of differences from the mean; None if not asked for.
        lowest, highest: (D,) extremes.
        zeros: number of values that are exactly zero.
    """

    rows: int
    mean: np.ndarray
    squares: np.ndarray
    scatter: np.ndarray | None
    lowest: np.ndarray
    highest: np.ndarray
    zeros: int = 0

    @classmethod
    def of(cls, values: np.ndarray, scatter: bool) -> Moments:
        """Moments of (n, D) rows, n > 0."""
        wide = values.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        return cls(
            len(values),
            mean,
            np.einsum("nd,nd->d", wide, wide),
            wide.T @ wide if scatter else None,
            values.min(axis=0),
            values.max(axis=0),
            int(np.count_nonzero(values == 0)),
        )

    def add(self, other: Moments) -> None:
        """Take the rows of `other` in."""
        total = self.rows + other.rows
        apart = other.mean - self.mean
        weight = self.rows * other.rows / total
        self.squares += other.squares + weight * apart**2
        if self.scatter is not None and other.scatter is not None:
            self.scatter += other.scatter + weight * np.outer(apart, apart)
        self.mean += apart * (other.rows / total)
        self.lowest = np.minimum(self.lowest, other.lowest)
        self.highest = np.maximum(self.highest, other.highest)
        self.zeros += other.zeros
        self.rows = total

    @property
    def variance(self) -> np.ndarray:
        """(D,) population variance."""
        return self.squares / self.rows


def block_rows(store: FeatureStore, key: str, block: int) -> Iterator[np.ndarray]:
    """(n, D) pieces of the filled rows of one committed block, D the flattened row.

    Yields:
        About `VALUES_AT_ONCE` values at a time, whole clips.
    """
    held: list[np.ndarray] = []
    count = 0
    for row, length in filled(store, key, block):
        values = store.rows_at(key, row, length)
        held.append(values.reshape(len(values), -1))
        count += values.size
        if count >= VALUES_AT_ONCE:
            yield np.concatenate(held)
            held, count = [], 0
    if held:
        yield np.concatenate(held)


def filled(store: FeatureStore, key: str, block: int) -> Iterator[tuple[int, int]]:
    """(row, number of filled rows) of every clip of a block that has rows; nothing if the block is not committed."""
    span = store.block_span(key, block)
    if store.commit(key, block) is not None:
        lengths = store.array(key, "length")[span.start : span.stop]
        yield from ((row, int(length)) for row, length in zip(span, lengths, strict=True) if length)


def block_moments(path: Path, key: str, block: int, scatter: bool, pool: bool) -> Moments | None:
    """Moments of one committed block; None if no clip of it has rows.

    Args:
        pool: average a map over its places first, so that D is the number of channels (the last axis).
    """
    store = FeatureStore.open(path)
    found: Moments | None = None
    for values in block_rows(store, key, block):
        part = Moments.of(pooled(values, store.spec(key).shape) if pool else values, scatter)
        if found is None:
            found = part
        else:
            found.add(part)
    return found


def pooled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, channels): mean over all axes of a row but the last."""
    if len(shape) < 2:
        return values
    return values.reshape(len(values), -1, shape[-1]).mean(axis=1)


def block_histogram(path: Path, key: str, block: int, low: float, high: float, bins: int) -> np.ndarray:
    """(bins,) int64 counts of all values of one committed block."""
    store = FeatureStore.open(path)
    counts = np.zeros(bins, np.int64)
    for values in block_rows(store, key, block):
        wide = values.astype(np.float64)  # NumPy would place half-precision values by half-precision edges
        counts += np.histogram(np.clip(wide, low, high), bins=bins, range=(low, high))[0]
    return counts


def block_projection(
    path: Path, key: str, block: int, mean: np.ndarray, axes: np.ndarray, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Clips of one block on the principal axes, for plots: the mean of each clip's rows, every `every`-th clip.

    Args:
        mean: (C,) centre.
        axes: (C, k) orthonormal columns.
    Returns:
        (n,) int64 rows of the manifest and (n, k) float32 coordinates.
    """
    store = FeatureStore.open(path)
    rows, points = [], []
    for row, length in filled(store, key, block):
        if row % every:
            continue
        values = store.rows_at(key, row, length)
        flat = pooled(values.reshape(len(values), -1), store.spec(key).shape).astype(np.float64)
        rows.append(row)
        points.append((flat.mean(axis=0) - mean) @ axes)
    return np.array(rows, np.int64), np.array(points, np.float32).reshape(len(rows), axes.shape[1])


def components(scatter: np.ndarray, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` axes of greatest variance.

    Returns:
        (D, count) orthonormal columns, the largest entry of each positive so that the sign is fixed, and the (count,)
        share of the variance that each explains.
    """
    values, vectors = np.linalg.eigh(scatter / rows)
    order = np.argsort(values)[::-1][:count]
    axes = vectors[:, order]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    total = values.clip(min=0).sum()
    return axes, values[order].clip(min=0) / total if total > 0 else np.zeros(len(order))
