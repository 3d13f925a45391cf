"""What may run an encoder's network: PyTorch as it is, or a library that makes a faster program of it.

All are equal within rounding; what is fp32 stays fp32.
"""

from __future__ import annotations

import importlib.util

import torch

from extractors.base import Encoder
from extractors.spec import FeatureSpec

NAMES = ("torch", "openvino", "inductor")
_NEEDS = {
    "openvino": "a CPU device and the package: pip install openvino",
    "inductor": "a C++ compiler such as g++, or for a GPU the package: pip install triton",
}


def available(device: str | torch.device) -> tuple[str, ...]:
    """Backends for this device, the best first."""
    from extractors import inductor

    device = torch.device(device)
    names = ["openvino"] if device.type == "cpu" and importlib.util.find_spec("openvino") else []
    return (*names, "torch", *(["inductor"] if inductor.available(device) else []))


def install(encoder: Encoder, name: str, rows: int | None = None) -> None:
    """Have the encoder's network run by the named backend.

    Args:
        rows: of the feature that will be made; a network whose work is not worth a conversion stays with PyTorch.
            None converts in any case.
    Raises:
        ValueError: unknown name.
        ImportError: the backend is not installed, or not for the encoder's device.
    """
    if name not in NAMES:
        raise ValueError(f"backend {name!r} is none of {', '.join(NAMES)}")
    if name not in available(encoder.device):
        raise ImportError(f"backend {name} on {encoder.device} needs {_NEEDS[name]}")
    if name == "openvino":
        from extractors.converted import OpenVINO

        encoder.backend = OpenVINO(encoder, None if rows is None else rows * encoder.items_per_row)
        return
    # Convolutions are a tenth to a sixth faster so, on both kinds of device; other weights, those over time among them,
    # stay as they are.
    for weight in encoder.network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.to(memory_format=torch.channels_last)
    encoder.backend = None
    if name == "inductor":
        from extractors.inductor import Inductor

        encoder.backend = Inductor(encoder)


def is_kept(spec: FeatureSpec, name: str) -> bool:
    """Whether an encoder of this spec will find its network converted, so that its weights may never be needed."""
    if name != "openvino" or name not in available("cpu"):
        return False
    from extractors.converted import shelf

    return bool(shelf(spec))
