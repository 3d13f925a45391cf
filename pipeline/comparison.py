"""How far two sets of feature rows are apart: row cosine and largest difference, clip by clip in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.store import FeatureStore, StoreError


@dataclass(frozen=True)
class Distance:
    """Two keys over the clips that both stores know.

    Args:
        clips: compared; both have rows.
        rows: compared.
        cosine_median, cosine_p5: over rows; a row of zeros equals only another row of zeros.
        largest: absolute difference of single values.
        different_lengths: clips whose numbers of rows differ; the common first rows are compared.
        missing_a, missing_b: ids that have rows only in the other store.
        identical: both have the same clips, at least one, and every value is equal.
    """

    clips: int
    rows: int
    cosine_median: float
    cosine_p5: float
    largest: float
    different_lengths: int
    missing_a: tuple[str, ...]
    missing_b: tuple[str, ...]

    @property
    def identical(self) -> bool:
        same_clips = self.clips > 0 and not self.missing_a and not self.missing_b
        return same_clips and self.largest == 0 and not self.different_lengths

    def to_dict(self) -> dict[str, Any]:
        return self.__dict__ | {"identical": self.identical}


def row_cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(T,) cosine between rows, each flattened; two rows of zeros have 1, a row of zeros and another 0.

    Args:
        one, two: (T, ...) of one shape.
    """
    one, two = (values.reshape(len(values), -1).astype(np.float64) for values in (one, two))
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)
    product = lengths[0] * lengths[1]
    cosine = np.einsum("ij,ij->i", one, two) / np.where(product > 0, product, 1)
    cosine = np.where(product > 0, np.clip(cosine, -1, 1), 0.0)
    return np.where((one == two).all(axis=1), 1.0, cosine)  # exactly, where rounding would say 0.9999999


def distance(store_a: FeatureStore, key_a: str, store_b: FeatureStore, key_b: str) -> Distance:
    """Compare a key of one store with a key of another, clip by clip.

    Raises:
        StoreError: rows of different shapes, or no common clip.
    """
    shapes = store_a.spec(key_a).shape, store_b.spec(key_b).shape
    if np.prod(shapes[0]) != np.prod(shapes[1]):
        raise StoreError(f"{key_a} has rows of shape {shapes[0]}, {key_b} of {shapes[1]}: not comparable")
    lengths_a = dict(zip(store_a.ids, store_a.lengths(key_a).tolist(), strict=True))
    lengths_b = dict(zip(store_b.ids, store_b.lengths(key_b).tolist(), strict=True))
    common = [clip_id for clip_id in lengths_a if clip_id in lengths_b]
    if not common:
        raise StoreError(f"{store_a.path} and {store_b.path} have no clip in common")
    cosines, largest, uneven, compared = [], 0.0, 0, 0
    for clip_id in common:
        if not (lengths_a[clip_id] and lengths_b[clip_id]):
            continue
        one, two = store_a.read(clip_id, key_a), store_b.read(clip_id, key_b)
        count = min(len(one), len(two))
        uneven += len(one) != len(two)
        compared += 1
        one, two = one[:count].reshape(count, -1), two[:count].reshape(count, -1)
        cosines.append(row_cosines(one, two))
        largest = max(largest, float(np.abs(one.astype(np.float64) - two).max()))
    joined = np.concatenate(cosines) if cosines else np.array([np.nan])
    return Distance(
        compared,
        len(joined) if cosines else 0,
        float(np.median(joined)),
        float(np.percentile(joined, 5)),
        largest,
        uneven,
        tuple(clip_id for clip_id in common if lengths_b[clip_id] and not lengths_a[clip_id]),
        tuple(clip_id for clip_id in common if lengths_a[clip_id] and not lengths_b[clip_id]),
    )


def changed_fields(one: dict[str, Any], two: dict[str, Any], place: str = "") -> list[str]:
    """Every field that differs between two records, `name: old -> new`, nested names joined by dots."""
    found = []
    for name in [*one, *(name for name in two if name not in one)]:
        here, old, new = f"{place}{name}", one.get(name), two.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed_fields(old, new, f"{here}.")
        elif old != new:
            found.append(f"{here}: {old!r} -> {new!r}")
    return found
