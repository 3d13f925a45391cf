"""The table of recipes: by name, exactly what one paper (or we) did to turn a clip into numbers.

Each encoder's file holds its own recipes beside the network that they configure; this page only gathers them.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from dataclasses import dataclass

from extractors.spec import FeatureSpec
from extractors.weights import Weights

# Files that define `RECIPES: tuple[Recipe, ...]`.  They import nothing heavy beyond torch at module level.
_FILES = (
    "vgg19",
    "vggish",
    "cnn14",
    "clap",
    "htsat",
    "audioclip",
    "clip",
    "r2plus1d",
    "resnet",
    "swin_v2",
    "clip_tiny",
    "clap_tiny",
)


@dataclass(frozen=True)
class Recipe:
    """A feature as one publication made it, or as we recommend it.

    Args:
        spec: with `weights="none"`; the weights are chosen when the encoder is loaded.
        weights: the published checkpoint, None if there is none.
        source: paper and repository (with commit) that establish it, or `clave` for our defaults.
        choices: what the source does not establish and we decided, one sentence each.
    """

    spec: FeatureSpec
    weights: Weights | None
    source: str
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name


@functools.cache
def table() -> dict[str, Recipe]:
    """Every recipe by name, each file imported once, on first use."""
    gathered: dict[str, Recipe] = {}
    for file in _FILES:
        for entry in importlib.import_module(f"extractors.{file}").RECIPES:
            if entry.name in gathered:
                raise ValueError(f"recipe {entry.name!r} is defined twice")
            gathered[entry.name] = entry
    return gathered


def recipe(name: str) -> Recipe:
    """The recipe called `encoder:recipe`, or the encoder's default.

    Raises:
        ValueError: unknown name; the message lists the near ones.
    """
    from extractors.base import ENCODERS

    module = ENCODERS.get(name.split(":")[0], "").split(":")[0]
    if module:  # one file instead of all: some of them import for seconds
        for entry in importlib.import_module(module).RECIPES:
            if entry.name == name:
                return entry
    known = table()
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.3)) or "none"
        raise ValueError(f"unknown encoder or recipe {name!r}. Near: {near}. All: {', '.join(sorted(known))}")
    return known[name]
