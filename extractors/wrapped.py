"""What every other way to run an encoder's network needs: the network as a module, and the check of its rows."""

from __future__ import annotations

import numpy as np
import torch

from extractors.base import Encoder

# Largest difference over largest value that still counts as rounding; measured are 3e-7 to 5e-6 (docs/parity.md).
_FP32_ERROR = 5e-5
# Smallest cosine with the fp32 row.
_HALF_COSINE = 0.999
#: Rows that PyTorch computes too, for the comparison.
COMPARED = 2


class Disagreement(Exception):
    """A converted network whose rows are not PyTorch's."""


class Forward(torch.nn.Module):
    """`Encoder.forward` as the module that exporters want."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.network
        self._forward = encoder.forward

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._forward(inputs)


def compare(found: np.ndarray, expected: np.ndarray, half: bool) -> None:
    """Raise `Disagreement` unless rows are equal within the rounding of the precision."""
    found, expected = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (found, expected))
    if half:
        length = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = float(((found * expected).sum(axis=1) / np.maximum(length, 1e-30)).min())
        if not cosine >= _HALF_COSINE and length.min() > 0:
            raise Disagreement(f"cosine {cosine:.6f} with fp32, at least {_HALF_COSINE} is asked for")
        return
    error = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    if not error <= _FP32_ERROR:
        raise Disagreement(f"largest relative difference {error:.2g}, at most {_FP32_ERROR} is asked for")
