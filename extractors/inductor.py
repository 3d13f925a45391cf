"""An encoder's network through `torch.compile`: layers fused into kernels of its own, on a GPU replayed as one graph.

Compiling takes half a minute to minutes per network and is done anew by every process; nothing is benchmarked while it
compiles, so that the same code comes out every time.  On a CPU it needs a C++ compiler, on a GPU Triton.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings

import torch

from extractors.base import Encoder
from extractors.wrapped import COMPARED, Forward, compare

_PROGRAMS = 200


def available(device: torch.device) -> bool:
    """Whether kernels can be made for this device."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


class Inductor:
    """Calls an encoder's network through `torch.compile`, one program per input shape.

    A network that does not compile, or whose rows disagree with what PyTorch gives without it, is run without it;
    `refusal` says why.

    Args:
        encoder: on its device.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.refusal: str | None = None
        self._compared: set[tuple[int, ...]] = set()
        # A graph is recorded per shape and replayed: the host launches one thing a batch instead of hundreds.
        mode = "reduce-overhead" if encoder.device.type == "cuda" else "default"
        self._program = torch.compile(Forward(encoder), dynamic=False, mode=mode)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """What `encoder.forward` returns."""
        if self.refusal is None:
            try:
                return self._run(inputs)
            except torch.OutOfMemoryError:
                raise  # the caller comes again with fewer rows
            except Exception as error:  # compilers raise whatever they like; PyTorch can do all of it
                self.refusal = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else repr(error)
                logging.getLogger(__name__).warning(
                    "%s runs without torch.compile: %s", self.encoder.spec.name, self.refusal
                )
        return self.encoder.forward(inputs)

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        if tuple(inputs.shape) not in self._compared:
            self._compare(inputs)
            self._compared.add(tuple(inputs.shape))
        return self._program(inputs).clone()  # the next replay writes where this one did

    def _compare(self, inputs: torch.Tensor) -> None:
        """Compile for the shape of these inputs, and raise `Disagreement` if their first rows are not PyTorch's."""
        with torch.autocast(inputs.device.type, enabled=False):
            expected = self.encoder.forward(inputs[:COMPARED])
        # All encoders of a process and all shapes count as one function; past the limit they silently run as they are.
        with warnings.catch_warnings(), torch._dynamo.config.patch(recompile_limit=_PROGRAMS):
            warnings.simplefilter("ignore")  # the compiler's remarks on other people's networks
            found = self._program(inputs)[:COMPARED]
        half = self.encoder.spec.precision != "fp32"
        compare(*(rows.float().cpu().numpy() for rows in (found, expected)), half=half)
