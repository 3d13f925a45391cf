"""Checkpoints that only the run that wrote them takes up again: each says what its trajectory depends on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.run import log, write_torch

_FORMAT = 2
#: So many differences are named; a change of the data brings many at once.
_NAMED = 6


class Stale(ValueError):
    """A checkpoint that cannot be taken up; the message says why."""


def save(path: Path, facts: dict[str, Any], state: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically, with what they depend on (JSON values)."""
    write_torch(path, state | {"format": _FORMAT, "facts": json.dumps(facts, sort_keys=True)})


def load(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """What `save` wrote, on the CPU; None where there is no file.

    Raises:
        Stale: it is damaged, or depends on other facts.
    """
    import torch

    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known, earlier = state["format"] == _FORMAT, json.loads(state.get("facts", "{}"))
    except Exception as error:  # torch raises many kinds for a damaged file
        raise Stale(f"{path}: unreadable ({error})") from error
    if not known:
        raise Stale(f"{path}: written by another version")
    if changed := _changed(earlier, json.loads(json.dumps(facts))):
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise Stale(f"{path}: of a run with other data or settings: {', '.join(changed[:_NAMED])}{more}")
    return state


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--restart` and `--stale`, which `take_up` obeys."""
    parser.add_argument("--restart", action="store_true", help="forget an earlier run in --out, whatever it is")
    parser.add_argument(
        "--stale",
        default="refuse",
        choices=["refuse", "restart"],
        help="an earlier run in --out of other data or settings, or a damaged one: refuse it or begin anew",
    )


def take_up(resume: Callable[[], bool], forget: Callable[[], None], restart: bool, stale: str) -> None:
    """Continue from the folder's checkpoint, or begin anew.

    Args:
        forget: removes what an earlier run left.
        restart: forget it whatever it is.
        stale: what to do with one that cannot be taken up, `refuse` or `restart`.
    Raises:
        ValueError: there is one that cannot be taken up.
    """
    if restart:
        forget()
        return
    try:
        resume()
    except Stale as error:
        if stale != "restart":
            raise ValueError(f"{error}; choose another --out, or begin anew with --stale restart") from error
        log(f"{error}; it is forgotten, and all begins anew")
        forget()


def _changed(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of the values that differ, `recipe epochs`."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [found for key in keys for found in _changed(one.get(key), other.get(key), f"{name} {key}".strip())]
    return [] if one == other else [name]
