"""What can be wrong with a store, found block by block so that one block at a time can be repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.blocks import PARTIAL, StoreError, in_use, scratch_path
from pipeline.layout import ARRAYS, shard_files
from pipeline.manifest import Manifest
from pipeline.outcomes import CODES, OUTCOMES
from pipeline.run import sha256_of
from pipeline.store import FeatureStore


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Args:
        key: feature key, or `` for the store as a whole.
        block: number of the block that has to be made again, None where forgetting a block does not help.
        text: one sentence.
    """

    key: str
    block: int | None
    text: str

    def __str__(self) -> str:
        place = self.key if self.block is None else f"{self.key} block {self.block}"
        return f"{place}: {self.text}" if place else self.text


def damages(store: FeatureStore, keys: list[str] | None = None, deep: bool = True) -> Iterator[Damage]:
    """Everything wrong with the committed blocks; uncommitted blocks are not wrong, see `FeatureStore.missing`."""
    yield from folder_damages(store)
    for key in keys if keys is not None else store.keys():
        yield from key_damages(store, key)
        for block, _ in store.blocks(key):
            yield from block_damages(store, key, block, deep)


def folder_damages(store: FeatureStore) -> Iterator[Damage]:
    """Left-overs of killed processes, and clip ids that differ between keys."""
    for path in left_over(store.path):
        yield Damage("", None, f"{path.relative_to(store.path)}: left over by a killed process; `--sweep` removes it")
    keys = set(store.keys())
    for path in sorted(store.path.iterdir()):
        if path.is_dir() and path.name[0] != "." and path.name not in keys | {"commits"}:
            yield Damage(path.name, None, f"{path.name}/zarr.json is missing: the feature cannot be read; copy it back")
    for path in sorted((store.path / "commits").glob("*/")):
        if not (store.path / path.name).exists():
            yield Damage(path.name, None, f"commits/{path.name} records a feature that is not there")
    lists = {key: ids for key in store if (ids := _ids(store, key)) is not None}
    for key, ids in lists.items():
        if ids != next(iter(lists.values())):
            yield Damage(key, None, f"its clip ids differ from those of {next(iter(lists))}")


def _ids(store: FeatureStore, key: str) -> tuple[str, ...] | None:
    """Clip ids of a key; None if they are damaged."""
    try:
        return tuple(map(str, store.array(key, "clip")[:]))
    except (OSError, RuntimeError, ValueError):  # a codec's error is none of Zarr's own
        return None


def _array(store: FeatureStore, key: str, name: str) -> Any:
    """An array of a key; None if its metadata cannot be read."""
    try:
        return store.array(key, name)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def manifest_damages(store: FeatureStore, manifest: Manifest) -> Iterator[Damage]:
    """A store of another manifest, or ids that are not the manifest's."""
    if store.facts["manifest"] != manifest.digest:
        yield Damage("", None, f"{store.path}: belongs to another manifest than the one given ({manifest.dataset})")
    for key in store:
        if _ids(store, key) != manifest.ids:
            yield Damage(key, None, "its clip ids are not the manifest's")


def key_damages(store: FeatureStore, key: str) -> Iterator[Damage]:
    """Metadata that contradicts the plan, and a spec that is not the key's."""
    spec, layout, clips = store.spec(key), store.plan(key), store.facts["clips"]
    if spec.key != key:
        yield Damage(key, None, f"its metadata describe {spec.key}; the folder was renamed or the metadata changed")
    wanted = {
        "values": ((clips, layout.segments, *spec.shape), spec.dtype),
        "segments": ((clips, layout.segments, 2), "float64"),
        "length": ((clips,), "int32"),
        "outcome": ((clips,), "uint8"),
    }
    for name, (shape, dtype) in wanted.items():
        array = _array(store, key, name)
        if array is None:
            yield Damage(key, None, f"{name}/zarr.json is missing or damaged: {name} cannot be read; copy it back")
        elif array.shape != shape or array.dtype != np.dtype(dtype):
            yield Damage(key, None, f"{name} is {array.shape} {array.dtype}, the plan says {shape} {dtype}")
    ids = _ids(store, key)
    if ids is None or len(ids) != clips or len(set(ids)) != clips or not all(ids):
        yield Damage(key, None, "its clip ids are damaged or missing: no clip can be found; copy `clip` back, or merge")
    paths = [path for block, _ in store.blocks(key) for path in store.record_paths(key, block)]
    known = {path.name for path in paths}
    for path in sorted((store.path / "commits" / key).glob("*.json")):
        if path.name not in known:
            yield Damage(key, None, f"{path.relative_to(store.path)} is a record of no block of this key")


def block_damages(store: FeatureStore, key: str, block: int, deep: bool = True) -> Iterator[Damage]:
    """Problems of one committed block; nothing if it is not committed."""
    store.refresh()
    span = store.block_span(key, block)
    try:
        record = store.commit(key, block)
    except StoreError as error:
        yield Damage(key, block, str(error))
        return
    if record is None:
        return
    clips = f"clips {span.start}..{span.stop - 1}"
    names = shard_files(key, block, len(store.spec(key).shape))
    expected = [set(names.values())]
    if "ok" not in record.get("outcomes", ("ok",)):  # no clip has rows, so there is no file of values
        expected.append(expected[0] - {names["values"]})
    if not store.is_done(key, block) and record.get("clips", [0, 0])[1] in span:
        span = range(span.start, record["clips"][1])  # of a store that has grown since
    if record.get("clips") != [span.start, span.stop] or set(record.get("files", ())) not in expected:
        yield Damage(key, block, f"{clips}: its record is of another block")
        return
    sound = True
    for name, digest in record["files"].items():
        path = store.path / name
        if not path.exists():
            sound = False
            yield Damage(key, block, f"{clips}: {name} is missing")
        elif sha256_of(path) != digest:
            sound = False
            yield Damage(key, block, f"{clips}: {name} differs from what was committed")
    if sound and deep:
        yield from (Damage(key, block, f"{clips}: {text}") for text in _content(store, key, span, record))


def _content(store: FeatureStore, key: str, span: range, record: dict) -> Iterator[str]:
    """Outcomes, lengths, times and values against each other."""
    if any(_array(store, key, name) is None for name in ARRAYS):
        return  # of the key, and told there
    rows = slice(span.start, span.stop)
    outcome, length, segments = (store.array(key, name)[rows] for name in ("outcome", "length", "segments"))
    counts = dict(Counter(OUTCOMES[code] for code in outcome))
    if counts != record["outcomes"]:
        yield f"outcomes are {counts}, the record says {record['outcomes']}"
    ids = _ids(store, key) or tuple(f"in row {row}" for row in range(store.facts["clips"]))
    for offset in np.flatnonzero((outcome == CODES["ok"]) != (length > 0)):
        yield f"clip {ids[span[offset]]} has outcome {OUTCOMES[outcome[offset]]} and {length[offset]} rows"
    filled = np.arange(segments.shape[1]) < length[:, None]
    for offset in np.flatnonzero((np.isfinite(segments).all(axis=2) != filled).any(axis=1)):
        yield f"clip {ids[span[offset]]} has {length[offset]} rows, but times for another number"
    forward = (segments[..., 1] > segments[..., 0]) | ~filled
    forward[:, 1:] &= (segments[:, 1:, 0] > segments[:, :-1, 0]) | ~filled[:, 1:]
    for offset in np.flatnonzero(~forward.all(axis=1)):
        yield f"clip {ids[span[offset]]} has times that do not run forward"
    for offset in np.flatnonzero(length > 0):
        values = store.rows_at(key, span[offset], int(length[offset]))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"clip {ids[span[offset]]} holds NaN or infinity"


def uncounted(store: FeatureStore, key: str) -> list[int]:
    """Blocks whose shard files lie there without a commit record: a writer died, or the record was deleted."""
    axes = len(store.spec(key).shape)
    return [
        block
        for block, _ in store.blocks(key)
        if not any(path.exists() for path in store.record_paths(key, block))
        and any((store.path / name).exists() for name in shard_files(key, block, axes).values())
    ]


def left_over(store: Path) -> list[Path]:
    """Temporary files and folders of processes that are gone; those of living writers are left out."""
    found: list[Path] = []
    for path in sorted(store.rglob(f"*{PARTIAL}")):
        inside = any(parent.name.endswith(PARTIAL) for parent in path.relative_to(store).parents)
        if not inside and not in_use(path if path.is_dir() else _scratch_of(store, path)):
            found.append(path)
    return found


def _scratch_of(store: Path, path: Path) -> Path:
    """The folder that the writer of a commit record holds: of `commits/KEY/000003.json.PID.partial`."""
    number = path.name.partition(".")[0]
    known = path.parent.parent == store / "commits" and number.isdecimal()
    return scratch_path(store, path.parent.name, int(number)) if known else path / "nobody"
