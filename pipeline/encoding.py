"""Rows from many clips through one encoder in batches of one shape, and back to the clips they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from extractors.base import Encoder
from pipeline.preparation import Failure, Part


@dataclass(frozen=True)
class Rows:
    """All rows of one clip: (T, *spec.shape) values and (T, 2) segments in seconds."""

    row: int
    values: np.ndarray
    segments: np.ndarray


class BatchedEncoder:
    """Encodes parts in batches of exactly `batch_rows` rows, cut across clips; the last batch is padded.

    Because every batch has the same shape, a row's numbers do not depend on the rows beside it.  At most one batch
    of prepared rows waits at a time, besides the encoded rows of unfinished clips.

    Args:
        encoder: with weights, on its device.
        batch_rows: rows per batch; the encoder's own default if None.
    """

    def __init__(self, encoder: Encoder, batch_rows: int | None = None) -> None:
        self.encoder = encoder
        self.batch_rows = batch_rows or encoder.batch_rows
        self._waiting: list[tuple[int, int, torch.Tensor]] = []  # (clip row, first segment, prepared rows)
        self._count = 0
        self._encoded: dict[int, list[tuple[int, np.ndarray]]] = {}
        self._segments: dict[int, list[tuple[int, np.ndarray]]] = {}
        self._total: dict[int, int] = {}

    def add(self, part: Part) -> Iterator[Rows]:
        """Take prepared rows; yields clips that are complete by now."""
        self._waiting.append((part.row, part.offset, part.batch))
        self._count += len(part.batch)
        self._segments.setdefault(part.row, []).append((part.offset, part.segments))
        if part.last:
            self._total[part.row] = part.offset + len(part.batch)
        while self._count >= self.batch_rows:
            yield from self._encode()

    def drop(self, failure: Failure) -> None:
        """Forget a clip that failed after some of its rows were prepared."""
        self._waiting = [item for item in self._waiting if item[0] != failure.row]
        self._count = sum(len(item[2]) for item in self._waiting)
        for table in (self._encoded, self._segments, self._total):
            table.pop(failure.row, None)

    def flush(self) -> Iterator[Rows]:
        """Encode what is left, padding the batch with copies of its last row."""
        while self._count:
            yield from self._encode()

    def _encode(self) -> Iterator[Rows]:
        taken: list[tuple[int, int, torch.Tensor]] = []
        room = self.batch_rows
        while room and self._waiting:
            row, offset, batch = self._waiting.pop(0)
            if len(batch) > room:
                self._waiting.insert(0, (row, offset + room, batch[room:]))
                batch = batch[:room]
            taken.append((row, offset, batch))
            room -= len(batch)
            self._count -= len(batch)
        stacked = torch.cat([batch for _, _, batch in taken])
        if room:
            stacked = torch.cat([stacked, stacked[-1:].expand(room, *stacked.shape[1:])])
        with torch.inference_mode():
            values = self.encoder.encode(stacked.to(self.encoder.device)).cpu().numpy()
        start = 0
        for row, offset, batch in taken:
            self._encoded.setdefault(row, []).append((offset, values[start : start + len(batch)].copy()))
            start += len(batch)
            if row in self._total and sum(len(part) for _, part in self._encoded[row]) == self._total[row]:
                yield self._finish(row)

    def _finish(self, row: int) -> Rows:
        del self._total[row]
        return Rows(row, _joined(self._encoded.pop(row)), _joined(self._segments.pop(row)))


def _joined(parts: list[tuple[int, np.ndarray]]) -> np.ndarray:
    return np.concatenate([part for _, part in sorted(parts, key=lambda item: item[0])])
