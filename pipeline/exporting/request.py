"""What an export is asked for, which features it takes, and which rows are missing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.manifest import Clip, Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore, StoreError


@dataclass(frozen=True)
class Request:
    """One export.

    Args:
        manifest, store: what is exported.
        folder: to write into; does not exist for anybody else until the export is complete.
        chosen: role -> feature name, as the user typed it (`--feature role=name`).
        labels: folder of a pseudo-label store, or None.
        dtype: of feature arrays, or None for the layout's own.
        missing: `keep` or `renumber`.
        annotations: folder with the published annotation files, or None.
        media: folder of clips, or None.
        background: manifest and store of the background clips of AVE's weak setting, or None.
        workers, scheduler: for Dask.
    """

    manifest: Manifest
    store: FeatureStore | None
    folder: Path
    chosen: dict[str, str] = field(default_factory=dict)
    labels: Path | None = None
    dtype: str | None = None
    missing: str = "keep"
    annotations: Path | None = None
    media: Path | None = None
    background: tuple[Manifest, FeatureStore] | None = None
    workers: int = 0
    scheduler: str | None = None


@dataclass
class Export:
    """What came of it, for the report.

    Args:
        kept: what became of clips without features that are not left out.
        notes: for the person who runs a peer's code on the export.
    """

    features: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    kept: str = "kept as empty rows"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Role:
    """A feature as one layout names it.

    Args:
        name: as the layout calls it.
        recipes: feature names that are meant, best first; else the one feature of such an encoder and right shape.
        shape: of one clip, time first; -1 for any number of rows.
    """

    name: str
    recipes: tuple[str, ...]
    shape: tuple[int, ...]


def choose(request: Request, roles: tuple[Role, ...], store: FeatureStore | None = None) -> dict[str, str]:
    """Role -> key of the store, for every role that was asked for or that the store clearly has.

    Raises:
        StoreError: a role unknown to the layout, a feature that is not there, no role at all.
    """
    store = store or request.store
    if store is None:
        raise StoreError("--store is needed for this format")
    known = {role.name: role for role in roles}
    if strange := sorted(set(request.chosen) - set(known)):
        raise StoreError(f"--feature {strange[0]}=...: this format has the roles {', '.join(known)}")
    found = {name: store.key(feature) for name, feature in request.chosen.items()}
    keys = store.keys()
    names = {key: store.spec(key).name for key in keys}
    for role in roles:
        if role.name in found:
            continue
        named = [key for recipe in role.recipes for key in keys if names[key] == recipe]
        encoders = {recipe.partition(":")[0] for recipe in role.recipes}
        shaped = [key for key in keys if store.spec(key).encoder in encoders and role.shape in _shapes(store, key)]
        if named and sum(names[key] == names[named[0]] for key in named) > 1:
            raise StoreError(f"{store.path}: {names[named[0]]} has several keys, say which: --feature {role.name}=KEY")
        if named or len(shaped) == 1:
            found[role.name] = (named or shaped)[0]
    if not found:
        wanted = "; ".join(f"{role.name} from {', '.join(role.recipes)}" for role in roles)
        have = ", ".join(names.values()) or "none"
        raise StoreError(f"{store.path}: no feature of this format ({wanted}). It has: {have}. Use --feature ROLE=NAME")
    return {role.name: found[role.name] for role in roles if role.name in found}


def _shapes(store: FeatureStore, key: str) -> tuple[tuple[int, ...], ...]:
    """Shape of a clip, time first; a map of the whole clip is one row, whose own shape counts too."""
    rows, shape = store.plan(key).segments, tuple(store.spec(key).shape)
    return ((rows, *shape), shape) if rows == 1 else ((rows, *shape),)


def clip_array(store: FeatureStore, key: str, row: int, length: int, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of one clip in the layout's shape: (80, 2048) may be stored as ten rows of (8, 2048).

    Raises:
        StoreError: the sizes differ.
    """
    values = store.rows_at(key, row, length)
    if -1 in shape:
        if values.ndim != len(shape) or values.shape[1:] != shape[1:]:
            raise StoreError(f"{key}: rows of shape {values.shape[1:]}, the layout has {shape[1:]}")
        return values
    if values.size != math.prod(shape):
        raise StoreError(f"{key}, clip {store.ids[row]}: shape {values.shape}, the layout has {shape}")
    return values.reshape(shape)


@dataclass(frozen=True)
class Coverage:
    """Which manifest rows have which features.

    Args:
        rows: manifest rows that are exported, in order; all of them with `--missing keep`.
        place: manifest row -> row of the store, -1 where the store does not know the clip.
        lengths: role -> (clips,) number of stored rows by manifest row, 0 where there is none.
        missing: one record per manifest row and role that has none.
    """

    rows: list[int]
    place: np.ndarray
    lengths: dict[str, np.ndarray]
    missing: list[dict[str, Any]]

    def clips(self, manifest: Manifest) -> Iterator[tuple[int, Clip]]:
        """(position in the export, clip)."""
        for position, row in enumerate(self.rows):
            yield position, manifest.clips[row]


def cover(request: Request, keys: dict[str, str]) -> Coverage:
    """Find what is missing; with `renumber`, clips that miss any role are left out of all.

    Raises:
        StoreError: no clip has all features.
    """
    manifest, store = request.manifest, request.store
    known = {clip_id: row for row, clip_id in enumerate(store.ids)}
    place = np.array([known.get(clip_id, -1) for clip_id in manifest.ids], dtype=np.int64)
    lengths, missing = {}, []
    for role, key in keys.items():
        found = np.where(place >= 0, store.lengths(key)[place], 0)
        lengths[role] = found
        absent = np.flatnonzero(found == 0)
        outcomes = list(store.outcomes(key).values()) if len(absent) else []
        reasons = store.reasons(key) if len(absent) else {}
        for row in absent:
            outcome = outcomes[place[row]] if place[row] >= 0 else "pending"
            clip = manifest.clips[row]
            missing.append(
                {
                    "row": int(row),
                    "id": clip.id,
                    "source_id": clip.source_id,
                    "split": clip.split,
                    "feature": role,
                    "key": key,
                    "outcome": outcome,
                    "reason": reasons.get(clip.id, MEANING[outcome]),
                }
            )
    gone = {entry["row"] for entry in missing} if request.missing == "renumber" else set()
    rows = [row for row in range(len(manifest)) if row not in gone]
    if not rows or all(not (found > 0).any() for found in lengths.values()):
        raise StoreError(f"{store.path}: no clip of {manifest.dataset} has the features {', '.join(keys.values())}")
    return Coverage(rows, place, lengths, missing)
