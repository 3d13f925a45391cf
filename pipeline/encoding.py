"""Rows from many clips through one encoder in batches of one shape, and back to the clips they belong to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from extractors.base import Encoder
from pipeline.preparation import Part
from pipeline.run import log

# Rows per batch on an accelerator, for each row per batch on a CPU: small batches leave most of it idle.
_ACCELERATOR_FACTOR = 8


@dataclass(frozen=True)
class Rows:
    """All rows of one clip: (T, *spec.shape) values and (T, 2) segments in seconds."""

    row: int
    values: np.ndarray
    segments: np.ndarray


@dataclass(eq=False)
class _Clip:
    """A clip on its way: items sent to the network so far, and what came back."""

    row: int
    sent: int = 0
    back: int = 0
    whole: bool = False
    values: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    segments: list[np.ndarray] = field(default_factory=list)

    def rows(self) -> Rows:
        return Rows(self.row, np.concatenate(self.values)[np.concatenate(self.places)], np.concatenate(self.segments))


@dataclass(frozen=True)
class _Launched:
    """A batch on the device: which clips its items belong to, in order, and where the result will be."""

    clips: tuple[tuple[_Clip, int], ...]
    values: torch.Tensor
    ready: torch.cuda.Event | None


class BatchedEncoder:
    """Encodes parts in batches of exactly `batch_rows` rows, cut across clips; the last batch is padded.

    Because every batch has the same shape, a row's numbers do not depend on the rows beside it.  The batch lies on
    the device, and rows are copied into it as they come.  A GPU takes the next rows while it computes, and results
    come back one batch late, so it does not wait for the host.

    Args:
        encoder: with weights, on its device.
        batch_rows: rows per batch; what suits the encoder and the device if None.
        transforms: parts hold collected rows, which are transformed here, on the device.
    """

    def __init__(self, encoder: Encoder, batch_rows: int | None = None, transforms: bool = False) -> None:
        self.encoder = encoder
        self.device = encoder.device
        self._transforms = transforms
        self.batch_rows = batch_rows or _batch_rows(encoder, self.device)
        #: Seconds that the caller spent in the network, and clips that came out.
        self.busy_s, self.clips = 0.0, 0
        self._pieces = 1
        self._buffer: torch.Tensor | None = None
        self._filled: list[tuple[_Clip, int]] = []
        self._count = 0
        self._launched: _Launched | None = None
        self._open: dict[int, _Clip] = {}

    def add(self, part: Part) -> Iterator[Rows]:
        """Take rows, on the device; yields clips that are complete by now.

        On a CPU the part's memory may be reused afterwards.
        """
        if part.offset == 0:
            self._open[part.row] = _Clip(part.row)  # also when a clip starts anew because its first index was wrong
        clip = self._open[part.row]
        clip.places.append(part.places + clip.sent)
        clip.segments.append(part.segments)
        clip.sent += len(part.batch)
        clip.whole = part.last
        batch = self._arrived(part.batch)
        if self._buffer is None:
            self._buffer = torch.empty((self.batch_rows, *batch.shape[1:]), dtype=batch.dtype, device=self.device)
        while len(batch):
            taken = batch[: self.batch_rows - self._count]
            batch = batch[len(taken) :]
            self._buffer[self._count : self._count + len(taken)] = taken
            self._filled.append((clip, len(taken)))
            self._count += len(taken)
            if self._count == self.batch_rows:
                yield from self._launch()

    def drop(self, row: int) -> None:
        """Forget a clip that failed after some of its rows were prepared; its items in the batch go to nobody."""
        self._open.pop(row, None)

    def flush(self) -> Iterator[Rows]:
        """Encode what is left, padding the batch with copies of its last row."""
        if self._count:
            self._buffer[self._count :] = self._buffer[self._count - 1].clone()
            yield from self._launch()
        yield from self._collect()

    def _arrived(self, batch: torch.Tensor) -> torch.Tensor:
        """A part's rows as they stand in the batch.

        Rows whose shape depends on the clip are transformed now, others with their whole batch, whose shape is fixed.
        """
        if not (self._transforms and self.encoder.transform_is_exact):
            return batch
        started_s = time.perf_counter()
        batch = self._transformed(batch)
        self.busy_s += time.perf_counter() - started_s
        return batch

    @torch.inference_mode()
    def _transformed(self, batch: torch.Tensor) -> torch.Tensor:
        """`Encoder.transform`, in as many pieces as the device's memory asks for."""
        try:
            return self.encoder.transform(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise self._no_room() from None
            torch.cuda.empty_cache()
            return torch.cat([self._transformed(piece) for piece in batch.chunk(2)])

    def _launch(self) -> Iterator[Rows]:
        started_s = time.perf_counter()
        values = self._encode(self._buffer)
        ready = None
        if self.device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self.device))  # by default it would be that of the first GPU
        launched = _Launched(tuple(self._filled), values, ready)
        self._filled, self._count = [], 0
        self.busy_s += time.perf_counter() - started_s
        yield from self._collect()
        self._launched = launched
        if ready is None:
            yield from self._collect()

    def _encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Rows of one batch, in as many pieces as the device's memory asks for."""
        while True:
            try:
                with torch.inference_mode():
                    parts = [self._encoded(piece) for piece in batch.chunk(self._pieces)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except torch.OutOfMemoryError:
                if self._pieces >= self.batch_rows:
                    raise self._no_room() from None
                self._pieces *= 2
                torch.cuda.empty_cache()
                log(
                    f"{self.encoder.spec.name}: {self.device} is out of memory; "
                    f"going on with {-(-self.batch_rows // self._pieces)} rows at once"
                )

    def _encoded(self, batch: torch.Tensor) -> torch.Tensor:
        if self._transforms and not self.encoder.transform_is_exact:
            batch = self.encoder.transform(batch)
        return self.encoder.encode(batch)

    def _no_room(self) -> MemoryError:
        name = self.encoder.spec.name
        return MemoryError(f"{name}: {self.device} has no room for a single row; free it, or use another")

    def _collect(self) -> Iterator[Rows]:
        """Hand the rows of the launched batch to their clips."""
        if self._launched is None:
            return
        launched, self._launched = self._launched, None
        if launched.ready is not None:
            started_s = time.perf_counter()
            launched.ready.synchronize()
            self.busy_s += time.perf_counter() - started_s
        values, start = launched.values.numpy(), 0
        for clip, count in launched.clips:
            clip.values.append(values[start : start + count].copy())
            clip.back += count
            start += count
            if clip.whole and clip.back == clip.sent and self._open.get(clip.row) is clip:
                del self._open[clip.row]
                self.clips += 1
                yield clip.rows()


def _batch_rows(encoder: Encoder, device: torch.device) -> int:
    if device.type == "cpu":
        return encoder.batch_rows
    frames = encoder.spec.sampler.per_row if encoder.spec.sampler is not None else 1
    return max(encoder.batch_rows, encoder.batch_rows * _ACCELERATOR_FACTOR // frames)
