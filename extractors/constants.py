"""Numbers that every batch needs, kept on the device that needs them.

A copy from the host waits until a GPU has done all that it was given before, so a constant that is copied for every
batch takes away the overlap of decoding and computing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Made = TypeVar("Made")


def kept(make: Callable[..., Made]) -> Callable[..., Made]:
    """A function that makes tensors on a device, called once for the same arguments; the least used are dropped.

    The tensors may be used anywhere, also where gradients are taken; nobody may write to them.
    """

    @functools.lru_cache(maxsize=32)
    @functools.wraps(make)
    def made(*arguments: object) -> Made:
        with torch.inference_mode(False):  # within `encode`, they would be barred from training for good
            return make(*arguments)

    return made
