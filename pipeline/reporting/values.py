"""Are the stored numbers sane: a few statistics per feature key, from a bounded sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.outcomes import CODES
from pipeline.reporting.gather import Run
from pipeline.store import FeatureStore

SAMPLE_CLIPS = 128
SAMPLE_BYTES = 48 << 20


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics over the sampled rows of one key; NaN and infinities are counted and left out of the others.

    Args:
        clips, of_clips: sampled clips, and clips that have rows.
        rows: sampled rows.
        zeros, bad: shares in 0..1 of exact zeros, and of NaN or infinity.
        constant_rows: share of rows whose values are all equal, which no picture or sound gives.
    """

    key: str
    clips: int
    of_clips: int
    rows: int
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    bad: float
    constant_rows: float

    @property
    def problems(self) -> list[str]:
        found = []
        if self.bad > 0:
            found.append("NaN or infinity among the values")
        if self.rows and self.std == 0:
            found.append("all values are equal")
        if self.constant_rows > 0.5:
            found.append("more than half of the rows are constant")
        return found


def statistics(run: Run) -> list[ValueStatistics]:
    """One record per key that has rows."""
    found = []
    for key in run.keys:
        made = run.attempt(f"features/{key}", of_key, run.store, key)
        if made is not None and made.rows:
            found.append(made)
    return found


def of_key(store: FeatureStore, key: str, clips: int = SAMPLE_CLIPS, budget: int = SAMPLE_BYTES) -> ValueStatistics:
    """Statistics of evenly spaced `ok` clips; at most `clips` of them, and about `budget` bytes."""
    spec = store.spec(key)
    codes = np.asarray(store.array(key, "outcome")[:])
    for span in store.missing(key):
        codes[span.start : span.stop] = CODES["pending"]
    ok = np.flatnonzero(codes == CODES["ok"])
    clip_bytes = store.plan(key).segments * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    count = min(len(ok), clips, max(budget // max(clip_bytes, 1), 1))
    chosen = ok[np.unique(np.linspace(0, len(ok) - 1, count).round().astype(np.int64))] if count else ok[:0]
    lengths = np.asarray(store.array(key, "length")[:])
    seen = zeros = bad = rows = constant = 0
    total = squares = 0.0
    low, high = math.inf, -math.inf
    for row in chosen:
        values = np.asarray(store.values(key)[int(row)][: int(lengths[row])], dtype=np.float64)
        flat = values.reshape(len(values), -1)
        finite = flat[np.isfinite(flat)]
        rows += len(flat)
        constant += int((flat.max(axis=1) == flat.min(axis=1)).sum()) if flat.size else 0
        seen += flat.size
        bad += flat.size - finite.size
        zeros += int((finite == 0).sum())
        total += float(finite.sum())
        squares += float(np.square(finite).sum())
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    good = max(seen - bad, 1)
    mean = total / good
    return ValueStatistics(
        key,
        clips=len(chosen),
        of_clips=len(ok),
        rows=rows,
        mean=mean,
        std=math.sqrt(max(squares / good - mean * mean, 0.0)),
        low=low if seen > bad else math.nan,
        high=high if seen > bad else math.nan,
        zeros=zeros / max(seen, 1),
        bad=bad / max(seen, 1),
        constant_rows=constant / max(rows, 1),
    )
