"""Learning rates: published schedules as data, `rate(schedule, base, epoch, iteration)` as a pure function."""

from __future__ import annotations

import math
from typing import Any


def rate(schedule: dict[str, Any] | None, base: float, epoch: int, iteration: int) -> float:
    """Learning rate of one optimiser step.

    Args:
        schedule: None for a constant rate; or a mapping with `kind`:
            `milestones` (`epochs`, `factor`): times factor from each of the epochs on;
            `every-epochs` or `every-iterations` (`every`, `factor`): times factor after each so many;
            `warm-up-cosine` (`warm_up`, `epochs`, `last`): linear to `base` over `warm_up` epochs, then half a cosine
            down to `last` at epoch `epochs`, where the first epoch is number 1; later ones stay there.
        base: rate before any change.
        epoch, iteration: counted from 0; iterations over the whole training.
    Raises:
        ValueError: unknown kind.
    """
    if schedule is None:
        return base
    kind = schedule.get("kind")
    if kind == "milestones":
        return base * schedule["factor"] ** sum(epoch >= milestone for milestone in schedule["epochs"])
    if kind == "every-epochs":
        return base * schedule["factor"] ** (epoch // schedule["every"])
    if kind == "every-iterations":
        return base * schedule["factor"] ** (iteration // schedule["every"])
    if kind == "warm-up-cosine":
        number, warm_up, last = epoch + 1, schedule["warm_up"], schedule["last"]
        if number < warm_up:
            return base * number / warm_up
        progress = min((number - warm_up) / max(schedule["epochs"] - warm_up, 1), 1.0)
        return last + 0.5 * (base - last) * (1 + math.cos(math.pi * progress))
    known = "milestones, every-epochs, every-iterations, warm-up-cosine"
    raise ValueError(f"schedule kind {kind!r} is none of {known}")


def misfit(schedule: dict[str, Any] | None, epochs: int) -> str:
    """What a training of so many epochs leaves of a schedule, in words; nothing where it fits.

    Schedules are published for a number of epochs and are not stretched to another one.
    """
    kind = (schedule or {}).get("kind")
    if kind == "milestones" and (late := [epoch for epoch in schedule["epochs"] if epoch >= epochs]):
        return f"the learning rate does not fall after epoch {', '.join(map(str, late))}: there are {epochs} epochs"
    if kind == "every-epochs" and schedule["every"] >= epochs:
        return f"the learning rate never falls: it would after {schedule['every']} epochs, there are {epochs}"
    if kind == "warm-up-cosine" and schedule["epochs"] != epochs:
        return f"the learning rate falls over {schedule['epochs']} epochs, there are {epochs}"
    return ""
