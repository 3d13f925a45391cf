"""What a user typed as weights (`pretrained`, `random:SEED`, a path) turned into a state dict and an identity.

The identity becomes part of the feature's key.  Networks never see a URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from extractors.checkpoint import load_file
from extractors.download import fetch
from extractors.random_weights import random_state_dict
from extractors.weights import Weights, WeightsError, sha256_of

_RANDOM = re.compile(r"random:(\d+)")


def identify(choice: str, record: Weights | None) -> str:
    """What goes into the feature's key for a choice of weights: `sha256:<64 hex>` or `random:<seed>`.

    Args:
        choice: `pretrained`, `random:SEED` or the path of a checkpoint file.
        record: published checkpoint of the recipe; None when there is none.
    Raises:
        WeightsError: see `fetch`; also for a choice that is none of the three.
    """
    if match := _RANDOM.fullmatch(choice):
        return f"random:{int(match[1])}"
    return f"sha256:{_locate(choice, record)[1]}"


def resolve(
    choice: str,
    record: Weights | None,
    network: torch.nn.Module,
    convert: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """State dict for `network`.

    Args:
        choice, record: as for `identify`.
        network: supplies keys and shapes.
        convert: published key format -> the network's key format.
    Raises:
        WeightsError: see `fetch`, `load_file`; also for a choice that is none of the three.
    """
    if match := _RANDOM.fullmatch(choice):
        return random_state_dict(network, int(match[1]))
    return convert(load_file(_locate(choice, record)[0], record.member if record else None))


def _locate(choice: str, record: Weights | None) -> tuple[Path, str]:
    """The checkpoint file and its SHA-256."""
    if choice == "pretrained":
        if record is None:
            raise WeightsError("no published checkpoint is known for this recipe; pass --weights PATH")
        return fetch(record)
    path = Path(choice)
    if not path.is_file():
        raise WeightsError(f"--weights {choice!r}: neither `pretrained`, `random:SEED` nor an existing file")
    return path, sha256_of(path)
