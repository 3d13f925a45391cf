"""Rows on their way to the device that encodes them."""

from __future__ import annotations

from collections.abc import Callable

import torch


def uploader(device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """What brings a tensor to a device; on a CPU it is there already and is not copied."""
    return Upload(device) if device.type == "cuda" else lambda batch: batch.to(device)


class Upload:
    """Copies to a GPU beside its computing: over pinned memory, on a stream of its own.

    A copy out of ordinary memory, or on the stream that computes, would wait for the batch before it.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._copied = torch.cuda.Event()
        self._pinned = torch.empty(0, dtype=torch.uint8)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The batch on the device, for use on its current stream; the memory it came from may be reused at once."""
        self._copied.synchronize()  # the pinned memory is read until then; an event that was never recorded is over
        size = batch.numel() * batch.element_size()
        if len(self._pinned) < size:
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        staged = self._pinned[:size].view(batch.dtype).view(batch.shape)
        staged.copy_(batch)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            made = staged.to(self.device, non_blocking=True)
            self._copied.record(self._stream)
        computing.wait_stream(self._stream)
        made.record_stream(computing)  # its memory is not given to another copy while it is read
        return made
