"""When and what: the records that pin a feature down before any media is opened.

`Grid` says which stretches of a clip become rows, `FrameSampler` which frames stand for a row, and
`FeatureSpec` everything else that can change a number.  All three are pure arithmetic on plain values: they
know no decoder, no dataset and no file format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

# A time that is off by less than this is the same time: half a sample at 48 kHz is 1e-5 s.
TIME_TOLERANCE_S = 1e-5


@dataclass(frozen=True)
class Grid:
    """Equal windows over a clip, one row each.

    Args:
        window_s: length of a row's window, seconds.
        hop_s: distance between the starts of two rows, seconds.
        count: fixed number of rows, whatever the clip's duration; None lets the duration decide.

    >>> Grid(1.0, 1.0).segments(10.03).shape
    (10, 2)
    """

    window_s: float = 1.0
    hop_s: float = 1.0
    count: int | None = None

    def rows(self, duration_s: float) -> int:
        """Number of rows of a clip that lasts `duration_s` seconds.

        Only whole windows count; a clip shorter than one window has one row, which the tail policy pads.
        """
        if self.count is not None:
            return self.count
        whole = int(np.floor((duration_s - self.window_s + TIME_TOLERANCE_S) / self.hop_s)) + 1
        return max(whole, 1)

    def segments(self, duration_s: float) -> np.ndarray:
        """(T, 2) float64: start and end of each row in seconds from the start of the clip."""
        start_s = np.arange(self.rows(duration_s), dtype=np.float64) * self.hop_s
        return np.stack([start_s, start_s + self.window_s], axis=1)

    def needed_s(self, duration_s: float) -> float:
        """Seconds of media that the rows cover, from the start of the clip to the end of the last window."""
        return float(self.segments(duration_s)[-1, 1])

    def row_numbers(self, segments: np.ndarray) -> np.ndarray:
        """(T,) int64: which rows of the whole grid these segments are (a block of a long clip starts later)."""
        return np.rint(np.asarray(segments)[:, 0] / self.hop_s).astype(np.int64)


def _centres(timeline_s: np.ndarray, segments: np.ndarray, rows: np.ndarray, per_row: int) -> np.ndarray:
    """The frame on screen at the middle of each of `per_row` equal parts of a segment."""
    offsets = (np.arange(per_row) + 0.5) / per_row
    times_s = segments[:, :1] + (segments[:, 1:] - segments[:, :1]) * offsets
    shown = np.searchsorted(timeline_s, times_s + TIME_TOLERANCE_S, side="right") - 1
    return np.clip(shown, 0, len(timeline_s) - 1)


def _tenths(timeline_s: np.ndarray, segments: np.ndarray, rows: np.ndarray, per_row: int) -> np.ndarray:
    """AVE 2018: `interval = int(N / 10)`, second l takes `int(l * interval + i / K * interval)`.

    N is the decoded frame count.  The trailing N mod 10 frames are never used, so rows drift early.
    """
    interval = len(timeline_s) // 10
    steps = np.arange(per_row) / per_row * interval
    return (rows[:, None] * interval + steps[None, :]).astype(np.int64)


def _spread(timeline_s: np.ndarray, segments: np.ndarray, rows: np.ndarray, per_row: int, total: int) -> np.ndarray:
    """LLP 2020, VALOR 2023: `round(linspace(0, N - 1, total))`, half to even, K consecutive picks per row."""
    picks = np.rint(np.linspace(0, len(timeline_s) - 1, total)).astype(np.int64)
    return picks[rows[:, None] * per_row + np.arange(per_row)]


def _spread_floor(
    timeline_s: np.ndarray, segments: np.ndarray, rows: np.ndarray, per_row: int, total: int
) -> np.ndarray:
    """DG-SCT on AVE: 1-based `linspace(1, N, total, dtype=int)`, which truncates."""
    picks = np.linspace(1, len(timeline_s), total).astype(np.int64) - 1
    return picks[rows[:, None] * per_row + np.arange(per_row)]


@dataclass(frozen=True)
class FrameSampler:
    """Which frames stand for a row.

    Args:
        rule: `centres` (ours: by timestamp), `tenths` (AVE 2018), `spread` (LLP, VALOR), `spread-floor` (DG-SCT).
        per_row: K, frames per row.
        total: picks over the whole clip, for the two spread rules; rows * K.
        source: `native` for the decoded stream, `jpeg-r8` for the LLP authors' 8 fps JPEG dump.
    """

    rule: str = "centres"
    per_row: int = 1
    total: int | None = None
    source: str = "native"

    def __post_init__(self) -> None:
        problems = []
        if self.rule not in ("centres", "tenths", "spread", "spread-floor"):
            problems.append(f"rule {self.rule!r} is none of centres, tenths, spread, spread-floor")
        if self.source not in ("native", "jpeg-r8"):
            problems.append(f"source {self.source!r} is neither native nor jpeg-r8")
        if self.per_row < 1:
            problems.append(f"per_row is {self.per_row}, at least 1 is needed")
        if self.rule.startswith("spread") and (self.total is None or self.total % self.per_row):
            problems.append(f"rule {self.rule!r} needs total, a multiple of per_row={self.per_row}; it is {self.total}")
        if problems:
            raise ValueError("; ".join(problems))

    def indices(self, timeline_s: np.ndarray, segments: np.ndarray, grid: Grid) -> np.ndarray:
        """Frame numbers for each row.

        Args:
            timeline_s: (N,) float64 presentation times of the decoded frames, ascending, from the clip's start.
            segments: (T, 2) float64 seconds, all rows of the clip or a block of them.
            grid: the grid that the segments come from; the count-based rules number rows by it.
        Returns:
            (T, K) int64 into the timeline.
        Raises:
            ValueError: the timeline is empty.
        """
        if len(timeline_s) == 0:
            raise ValueError("no decoded frame to sample from")
        segments = np.asarray(segments, dtype=np.float64)
        rows = grid.row_numbers(segments)
        if self.rule == "centres":
            return _centres(timeline_s, segments, rows, self.per_row)
        if self.rule == "tenths":
            return _tenths(timeline_s, segments, rows, self.per_row)
        rule = _spread if self.rule == "spread" else _spread_floor
        return rule(timeline_s, segments, rows, self.per_row, self.total)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that can change a number of a feature, and nothing else.

    It leaves out where the feature is stored and how long it took.  `key` names the feature on disk: readable,
    with a hash of all fields, so a change in any field is another key.

    Args:
        encoder: name in the table of encoders, `vgg19`.
        recipe: name in the table of recipes, `ave2018`, or `default`.
        modality: `visual` or `audio`.
        layer: what is read out, in the encoder's own words.
        preprocess: the front end, step by step, in order; each step is a short exact phrase.
        postprocess: what happens after the layer, in order.
        grid: when rows are.
        sampler: which frames; None for audio.
        shape: of one row.
        dtype: of the stored array.
        precision: `fp32` (the reference), `bf16` or `fp16`.
        weights: `sha256:...` of the checkpoint, or `random:SEED`, or `none` for front ends.
    """

    encoder: str
    recipe: str
    modality: str
    layer: str
    preprocess: tuple[str, ...]
    postprocess: tuple[str, ...]
    grid: Grid
    sampler: FrameSampler | None
    shape: tuple[int, ...]
    dtype: str = "float32"
    precision: str = "fp32"
    weights: str = "none"

    @property
    def name(self) -> str:
        """`encoder:recipe`, as a person types it."""
        return self.encoder if self.recipe == "default" else f"{self.encoder}:{self.recipe}"

    @property
    def random_weights(self) -> bool:
        return self.weights.startswith("random")

    @property
    def key(self) -> str:
        """Readable name plus the first 10 hex digits of a hash over all fields; safe as a file name."""
        blob = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":")).encode()
        parts = [self.encoder, self.recipe]
        if self.precision != "fp32":
            parts.append(self.precision)
        if self.random_weights:
            parts.append("random")
        parts.append(hashlib.sha256(blob).hexdigest()[:10])
        return ".".join(re.sub(r"[^A-Za-z0-9_-]", "-", part) for part in parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_dict`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureSpec:
        known = {field.name for field in dataclasses.fields(cls)}
        surplus = sorted(set(values) - known)
        if surplus:
            raise ValueError(f"feature spec has unknown fields {surplus}; this version knows {sorted(known)}")
        values = dict(values)
        values["grid"] = Grid(**values["grid"])
        values["sampler"] = FrameSampler(**values["sampler"]) if values["sampler"] else None
        for field in ("preprocess", "postprocess", "shape"):
            values[field] = tuple(values[field])
        return cls(**values)
