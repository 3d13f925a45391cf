"""An encoder's network through OpenVINO: fewer passes over memory, and the processor's peak.

On a CPU, PyTorch hands matrix products to MKL, which holds back on processors that Intel did not make, and it runs one
layer after another; OpenVINO fuses the layers.  A network is converted when its first batch comes, for the shape of
that batch, and is used only if its rows agree with PyTorch's on that batch; later runs find it on the shelf
(`extractors.programs`).
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from extractors import flop, programs
from extractors.base import Encoder
from extractors.spec import FeatureSpec
from extractors.wrapped import COMPARED, Forward, compare

_MODEL = "model.xml"
# Work from which a conversion, a few seconds, pays: where ResNet-50, CLIP and VGGish break even on two cores.
_WORTH_CONVERTING_FLOP = 4e12


class _NotWorthIt(Exception):
    """Too little work for a conversion."""


def shelf(spec: FeatureSpec) -> programs.Shelf:
    """Where the networks of a feature are kept on this machine."""
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
        self._warned = False
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
        kept_here = shelf(self.encoder.spec)
        kept = kept_here.find(tuple(part.shape))
        if kept is not None:
            self._check_worth(kept.flop)
            return self._program(_core().read_model(kept.folder / _MODEL), streams, threads)
        with torch.autocast("cpu", enabled=False):
            rows, operations = flop.count(lambda: self.encoder.forward(inputs[:COMPARED]))
        expected, per_item = rows.numpy(), operations / len(rows)
        self._check_worth(per_item)
        with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # the exporter's remarks on other people's networks
            exported = torch.export.export(Forward(self.encoder), (part.clone(),))
            model = _openvino().convert_model(exported)
        programs_made = []

        def add(model: Any) -> None:
            program = self._program(model, streams, threads)
            compare(program(inputs.numpy())[:COMPARED], expected, half=self.encoder.spec.precision != "fp32")
            programs_made.append(program)

        def save(folder: Path) -> None:
            _openvino().save_model(model, folder / _MODEL, compress_to_fp16=False)
            # Compiled anew, as later runs do: what was never saved may round differently (CLAP does, with AVX-512).
            add(_core().read_model(folder / _MODEL))

        kept_here.keep(tuple(part.shape), per_item, save)
        if not programs_made:  # it could not be saved
            add(model)
        return programs_made[0]

    def _check_worth(self, per_item: float) -> None:
        """Whether a network is at hand must not decide, or a second run would round differently from the first."""
        work = per_item * (self.items or 0)
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
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != precision and not self._warned:
            self._warned = True
            logging.getLogger(__name__).warning(
                "%s: this processor does not compute in %s, the network runs in %s: no sooner than --precision fp32",
                self.encoder.spec.name, precision, used,
            )  # fmt: skip
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
