"""Every trainable network by name, and how to build one.

>>> network = build("avel", "supervised", {"visual": (10, 7, 7, 512), "audio": (10, 128)}, classes=28)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from pipeline.models.base import Model, Shapes

# name -> setting -> "module:class"; a module is imported when its network is asked for.
MODELS: dict[str, dict[str, str]] = {
    "avel": {"supervised": "avel:AVEL", "weak": "avel:AVEL"},
    "cmran": {"supervised": "dmin:CMRAN", "weak": "dmin:CMRAN"},
    "cmbs": {"supervised": "cmbs:CMBS", "weak": "cmbs:WeakCMBS"},
    "cace-net": {"supervised": "cace_net:CACENet"},
    "dmin": {"supervised": "dmin:DMIN", "weak": "dmin:DMIN"},
    "dmsf": {"supervised": "dmsf:DMSF", "weak": "dmsf:DMSF"},
    "dg-sct": {"supervised": "dg_sct:DGSCT"},
    "han": {"weak": "han:HAN"},
    "valor": {"weak": "valor:VALOR"},
    "valor-plus": {"weak": "valor:VALOR"},
    "valor-plus-plus": {"weak": "valor:VALOR"},
    "link": {"weak": "link:LINK"},
}


def find(name: str, setting: str) -> type[Model]:
    """Class of a network.

    Raises:
        ValueError: unknown name, or a setting that the network does not have.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.3)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ValueError(f"unknown model {name!r}.{hint} Known: {', '.join(MODELS)}")
    if setting not in MODELS[name]:
        raise ValueError(f"model {name} is trained {' or '.join(MODELS[name])}, not {setting!r}")
    module, cls = MODELS[name][setting].split(":")
    return getattr(importlib.import_module(f"pipeline.models.{module}"), cls)


def build(name: str, setting: str, shapes: Shapes, classes: int, **options: Any) -> Model:
    """A network with fresh weights, from torch's global random state.

    Args:
        shapes: of one clip in each stream, (T, ...).
        classes: event classes without background.
        options: the network's own, as in its configuration file.
    Raises:
        ValueError: an option that the network does not know, a stream that is missing or of the wrong shape.
    """
    cls = find(name, setting)
    known = _options(cls)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"model {name} has no option {', '.join(unknown)}; it knows {', '.join(known)}")
    if missing := sorted(set(cls.streams) - set(shapes)):
        wanted = "; ".join(f"{stream}: {cls.streams[stream]}" for stream in missing)
        raise ValueError(f"model {name} needs more streams: {wanted}")
    try:
        return cls({stream: shapes[stream] for stream in cls.streams}, classes, setting, **options)
    except ValueError as error:
        raise ValueError(f"model {name}: {error}") from error


def _options(cls: type[Model]) -> list[str]:
    """Keyword-only options of a network and, where it passes others on, of its base."""
    known: list[str] = []
    for base in cls.__mro__:
        if not issubclass(base, Model) or base is Model or "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        known += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in known]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return known
