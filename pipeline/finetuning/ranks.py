"""Several processes as one: `torchrun` starts them, rows are gathered, gradients are summed."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from pipeline.device import use


def start(device: str) -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this process; without torchrun 0, 1 and the device itself.

    Raises:
        ValueError: there is no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, use(device)
    cuda = device.startswith("cuda")
    used = use(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    return distributed.get_rank(), distributed.get_world_size(), used


def stop() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def gather(rows: Tensor) -> tuple[Tensor, slice]:
    """Rows of all processes in rank order, without gradient, and where this process's are; counts may differ."""
    if not distributed.is_initialized():
        return rows, slice(0, len(rows))
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    first = sum(sizes[: distributed.get_rank()])
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), slice(first, first + len(rows))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes."""
    if distributed.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:  # None is None everywhere: CLIP's text tower takes no part
                distributed.all_reduce(parameter.grad)


def average_buffers(network: nn.Module) -> None:
    """Running statistics of norms: the mean over the processes."""
    if distributed.is_initialized():
        for buffer in network.buffers():
            if buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= distributed.get_world_size()


def agree(values: list[float]) -> list[float]:
    """What rank 0 says."""
    if not distributed.is_initialized():
        return values
    said = [values]
    distributed.broadcast_object_list(said, src=0)
    return said[0]
