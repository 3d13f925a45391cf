"""The optimizers that recipes name, with their settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

KINDS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def optimizer(settings: Mapping[str, Any], parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a recipe.

    Args:
        settings: `name`, one of `KINDS`, and the arguments of PyTorch's class.
    """
    arguments = {name: value for name, value in settings.items() if name != "name"}
    # One kernel for all parameters instead of a dozen small ones for each; equal within rounding.
    return KINDS[settings["name"]](parameters, fused=True, **arguments)
