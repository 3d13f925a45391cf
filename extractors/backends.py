"""An encoder's network run by another library: equal within rounding, and sooner.

On a CPU, PyTorch hands matrix products to MKL, which holds back on processors that Intel did not make, and it runs one
layer after another; OpenVINO fuses the layers and reaches the processor's peak.  What is fp32 stays fp32.  A network
is converted when its first batch comes, for the shape of that batch, and is used only if its rows agree with PyTorch's
on that batch; later runs find it on the shelf (`extractors.programs`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from extractors import programs
from extractors.base import Encoder
from extractors.spec import FeatureSpec

NAMES = ("torch", "openvino")

# Largest difference over largest value that still counts as rounding; measured are 3e-7 to 5e-6 (docs/parity.md).
_FP32_ERROR = 5e-5
# Smallest cosine with the fp32 row.
_HALF_COSINE = 0.999
# Rows that PyTorch computes too, for the comparison.
_COMPARED = 2
_MODEL = "model.xml"


# Work from which a conversion, a few seconds, pays: where ResNet-50, CLIP and VGGish break even on two cores.
_WORTH_CONVERTING_FLOP = 4e12


class Disagreement(Exception):
    """A converted network whose rows are not PyTorch's."""


class _NotWorthIt(Exception):
    """Too little work for a conversion."""


def available(device: str | torch.device) -> tuple[str, ...]:
    """Backends for this device, the best first."""
    on_cpu = torch.device(device).type == "cpu"
    return ("openvino", "torch") if on_cpu and importlib.util.find_spec("openvino") else ("torch",)


def install(encoder: Encoder, name: str, rows: int | None = None) -> None:
    """Have the encoder's network run by the named backend.

    Args:
        rows: of the feature that will be made; a network whose work is not worth the conversion stays with PyTorch.
            None converts in any case.
    Raises:
        ValueError: unknown name.
        ImportError: the backend is not installed, or not for the encoder's device.
    """
    if name not in NAMES:
        raise ValueError(f"backend {name!r} is none of {', '.join(NAMES)}")
    if name not in available(encoder.device):
        raise ImportError(f"backend {name} needs a CPU device and the package: pip install {name}")
    if name == "torch":
        # Convolutions are a tenth to a sixth faster so, on both kinds of device; other weights, those over time among
        # them, stay as they are.
        for weight in encoder.network.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
    items = None if rows is None else rows * encoder.items_per_row
    encoder.backend = None if name == "torch" else OpenVINO(encoder, items)


def is_kept(spec: FeatureSpec, name: str) -> bool:
    """Whether an encoder of this spec will find its network converted, so that its weights may never be needed."""
    return name == "openvino" and name in available("cpu") and bool(_shelf(spec))


def _shelf(spec: FeatureSpec) -> programs.Shelf:
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES", "DEVICE_ARCHITECTURE")
    return programs.Shelf(spec, " ".join(str(_core().get_property("CPU", name)) for name in names))


def _openvino() -> ModuleType:
    """The package, without the companion that reports every conversion to its makers: it does without if it must."""
    sys.modules.setdefault("openvino_telemetry", None)
    return importlib.import_module("openvino")


@functools.cache
def _core() -> Any:
    """OpenVINO's runtime, one for the process and never freed.

    A runtime gives the thread that makes it a stack for signal handlers, and puts the stack before it back when it is
    freed.  That one is gone if the runtime that it came from was freed earlier; the next signal with a handler
    (Ctrl-C, a child's end) then kills the process without a word.  Seen with 2026.4.1.
    """
    return _openvino().Core()


class _Forward(torch.nn.Module):
    """`Encoder.forward` as the module that exporters want."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.network
        self._forward = encoder.forward

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._forward(inputs)


class OpenVINO:
    """Calls an encoder's network through OpenVINO, one compiled program per input shape.

    A network that does not convert, or whose rows disagree, is run by PyTorch; `refusal` says why.

    Args:
        encoder: on the CPU.
        items: inputs of the network that will come; None converts however few.
    """

    def __init__(self, encoder: Encoder, items: int | None = None) -> None:
        self.encoder, self.items = encoder, items
        self.refusal: str | None = None
        self._programs: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """What `encoder.forward` returns, as float32."""
        if self.refusal is None and tuple(inputs.shape) not in self._programs:
            try:
                self._programs[tuple(inputs.shape)] = self._compile(inputs)
            except _NotWorthIt as reason:
                self.refusal = str(reason)
            except Exception as error:  # converters raise whatever they like; PyTorch can do all of it
                self.refusal = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else repr(error)
                logging.getLogger(__name__).warning("%s runs on PyTorch: %s", self.encoder.spec.name, self.refusal)
        if self.refusal is not None:
            return self.encoder.forward(inputs)
        return torch.from_numpy(self._programs[tuple(inputs.shape)](inputs.numpy()))

    def _compile(self, inputs: torch.Tensor) -> Callable[[np.ndarray], np.ndarray]:
        threads = torch.get_num_threads()
        streams = parts(len(inputs), threads)
        part = inputs[: len(inputs) // streams]
        shelf = _shelf(self.encoder.spec)
        kept = shelf.find(tuple(part.shape))
        if kept is not None:
            self._check_worth(kept.flop)
            return self._program(_core().read_model(kept.folder / _MODEL), streams, threads)
        with torch.autocast("cpu", enabled=False), FlopCounterMode(display=False) as counter:
            expected = self.encoder.forward(inputs[:_COMPARED]).numpy()
        flop = counter.get_total_flops() / len(expected)
        self._check_worth(flop)
        with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # the exporter's remarks on other people's networks
            exported = torch.export.export(_Forward(self.encoder), (part.clone(),))
            model = _openvino().convert_model(exported)
        program = self._program(model, streams, threads)
        _compare(program(inputs.numpy())[:_COMPARED], expected, half=self.encoder.spec.precision != "fp32")
        shelf.keep(
            tuple(part.shape),
            flop,
            lambda folder: _openvino().save_model(model, folder / _MODEL, compress_to_fp16=False),
        )
        return program

    def _check_worth(self, flop: float) -> None:
        """Whether a network is at hand must not decide, or a second run would round differently from the first."""
        work = flop * (self.items or 0)
        if self.items is not None and work < _WORTH_CONVERTING_FLOP:
            raise _NotWorthIt(f"{work:.2g} floating-point operations in all are sooner done than converted")

    def _program(self, model: Any, streams: int, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        """The model, compiled for this machine, as a function of a batch."""
        precision = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[self.encoder.spec.precision]
        compiled = _core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,  # two jobs on one machine would be pinned to the same cores
            },
        )
        requests = [compiled.create_infer_request() for _ in range(streams)]

        def program(values: np.ndarray) -> np.ndarray:
            for request, part in zip(requests, np.split(np.ascontiguousarray(values), streams), strict=True):
                request.start_async([part], share_inputs=True)
            for request in requests:
                request.wait()
            return np.concatenate([request.get_output_tensor(0).data for request in requests])

        return program


def parts(items: int, threads: int) -> int:
    """Into how many equal parts a batch is cut that go through the network side by side, each with its own threads.

    Threads that share a layer wait for each other after each; beside decoders, which take cores away for a moment,
    parts made ResNet-50 a sixth and CLIP in bf16 a quarter faster on two cores, and cost nothing where nobody disturbs.
    """
    return max(count for count in range(1, threads + 1) if items % count == 0 and (count == 1 or items // count >= 4))


def _compare(found: np.ndarray, expected: np.ndarray, half: bool) -> None:
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
