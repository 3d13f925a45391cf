"""Seeded state dicts with the names and shapes of a published file, as the golden arrays record them."""

from __future__ import annotations

import numpy as np
import torch

from tests.extractors import seeded


def state_dict(names: np.ndarray, shapes: np.ndarray, branches: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Tensors of every name that starts with one of `branches`, as the golden arrays' commands filled them."""
    state = {}
    for name, shape in zip(names.tolist(), shapes.tolist(), strict=True):
        if name.startswith(branches):
            state[name] = _value(name, tuple(int(part) for part in shape.split(",") if part))
    return state


def _value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith(("num_batches_tracked", "position_ids", "token_type_ids")):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("relative_position_index"):
        return relative_position_index()
    if name.endswith("audio.window"):
        import scipy.signal

        return torch.from_numpy(scipy.signal.get_window("blackmanharris", shape[0], fftbins=True)).float()
    if name.endswith("attn_mask") or "extractor" in name or 0 in shape:  # what a loader must ignore
        return torch.zeros(shape)
    return torch.from_numpy(np.asarray(seeded.tensor(name, shape, seed=0), dtype=np.float32))


def relative_position_index() -> torch.Tensor:
    """(64, 64) of an 8 x 8 window, as Liu et al. 2021 define it: 15 * (row offset + 7) + column offset + 7."""
    row, column = np.divmod(np.arange(64), 8)
    offsets = 15 * (row[:, None] - row[None, :] + 7) + (column[:, None] - column[None, :] + 7)
    return torch.from_numpy(offsets)
