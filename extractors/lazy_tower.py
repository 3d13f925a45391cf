"""The part of a checkpoint that features never need: a text tower, built when the first prompt is encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from extractors.checkpoint import load_strictly
from extractors.random_weights import random_state_dict
from extractors.weights import WeightsError

if TYPE_CHECKING:
    from extractors.base import Encoder


class LazyTower:
    """A network beside the encoder's own, from the same checkpoint or the same seed.

    Args:
        build: makes the network with arbitrary weights.
        optional: regular expression of its keys that a published file may lack.
    """

    def __init__(self, build: Callable[[], nn.Module], optional: str = r"$^") -> None:
        self._build = build
        self._optional = optional
        self._state: dict[str, torch.Tensor] = {}
        self._network: nn.Module | None = None

    def keep(self, state: dict[str, torch.Tensor]) -> None:
        """Remember these weights, in the network's key format, until they are needed."""
        self._state = state

    def get(self, encoder: Encoder) -> nn.Module:
        """The network in evaluation mode beside the encoder's own, with the weights that its spec names.

        Raises:
            WeightsError: the checkpoint lacks the tower or does not fit it.
        """
        spec, device = encoder.spec, next(encoder.network.parameters()).device  # filling that one fills this one
        if self._network is None:
            if not self._state and not spec.random_weights:
                raise WeightsError(f"{spec.name}: the checkpoint ({spec.weights}) has no text tower")
            network = self._build()
            if spec.random_weights:
                self._state = random_state_dict(network, int(spec.weights.removeprefix("random:")))
            load_strictly(network, self._state, f"the text tower of {spec.name} ({spec.weights})", self._optional)
            self._network = network.eval().requires_grad_(False)
            self._state = {}
        return self._network.to(device)
