"""Floating-point operations of a network, counted while it runs.

`torch.utils.flop_counter.FlopCounterMode` counts the same, but has PyTorch's compiler loaded for it: a second, which a
command over a few clips would spend on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def count(call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """What `call` returns, and the operations of its matrix products and convolutions (two for a multiply-add)."""
    from torch.utils.flop_counter import flop_registry  # a tenth of a second, for triton

    counter = _Counter(flop_registry)
    with counter:
        result = call()
    return result, counter.total


class _Counter(TorchDispatchMode):
    """Adds up PyTorch's own formulas over the operators that a call comes down to."""

    def __init__(self, formulas: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()
        self.formulas, self.total = formulas, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """True, the default, loads the compiler to tell it to leave this class alone; nothing is compiled in here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result
