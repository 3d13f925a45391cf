"""Which device a command computes on."""

from __future__ import annotations

import torch

from pipeline.run import UsageError


def use(name: str) -> torch.device:
    """The device that a `--device` flag names, made the one that this process works on.

    A process that is given the second GPU and does not say so to PyTorch holds memory of the first one too.  And fp32
    is fp32: cuDNN's convolutions and recurrences would take TF32, 10 bits of mantissa, without being asked.

    Args:
        name: `cpu`, `cuda` or `cuda:N`.
    Raises:
        UsageError: the name is not one of a device.
        ValueError: there is no such device; the message says what there is.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: write cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = f"cuda:0 to cuda:{count - 1}" if count else "no CUDA device"
            raise ValueError(
                f"--device {name}: torch {torch.__version__} sees {seen}; `python -m pipeline.doctor` says more, "
                "--device cpu works everywhere"
            )
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.allow_tf32 = False
    return device
