"""Where features are: a Zarr v3 group with one sub-group per feature key, an outcome for every clip.

    S/zarr.json                    dataset, manifest digest, number of clips
    S/<key>/values                 (clip, segment, ...) feature dtype, NaN where there is no row
    S/<key>/segments               (clip, segment, 2) float64 seconds
    S/<key>/length                 (clip) int32 rows that are filled
    S/<key>/outcome                (clip) uint8 code of `pipeline.outcomes`
    S/<key>/clip                   (clip) string, the ids in manifest order
    S/commits/<key>/<block>.json   written last: what the block holds, with the SHA-256 of its files

A *block* is a run of clips that is one shard file of each array.  It is written whole by one process or not at
all, so there are no locks; without its commit record it does not count.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from extractors.spec import FeatureSpec
from extractors.weights import sha256_of
from pipeline.manifest import Manifest
from pipeline.outcomes import CODES, MEANING, OUTCOMES
from pipeline.run import write_json

_FORMAT = 1
JOB_CLIPS = 256
_BLOCK_BYTES = 64 << 20
_ARRAYS = ("values", "segments", "length", "outcome")
_AXES = {0: (), 1: ("feature",), 2: ("token", "feature"), 3: ("row", "column", "feature")}


class NoRows(KeyError):
    """A clip has no rows under a key; `outcome` says why."""

    def __init__(self, clip_id: str, key: str, outcome: str) -> None:
        self.clip_id, self.key, self.outcome = clip_id, key, outcome
        super().__init__(f"clip {clip_id} has no rows under {key}: {MEANING[outcome]} ({outcome})")

    def __str__(self) -> str:
        return self.args[0]


class FeatureStore:
    """A store on disk.  It leaves out how the features were made.

    Reading is safe from any number of processes; writing is safe as long as one process writes one block.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "r") -> None:
        self.path = Path(path)
        try:
            self._group = zarr.open_group(self.path, mode=mode, zarr_format=3)
            self.facts: dict[str, Any] = dict(self._group.attrs)["clave"]
        except (FileNotFoundError, KeyError) as error:
            raise StoreError(f"{self.path}: not a feature store; `python -m pipeline.extract` makes one") from error
        if self.facts["format"] != _FORMAT:
            raise StoreError(f"{self.path}: store format {self.facts['format']}, this version reads {_FORMAT}")
        self._specs: dict[str, FeatureSpec] = {}
        self._plans: dict[str, Plan] = {}
        self._arrays: dict[tuple[str, str], zarr.Array] = {}
        self._rows: dict[str, int] | None = None

    # ---- making -------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        manifest: Manifest,
        specs: Iterable[FeatureSpec],
        job_clips: int = JOB_CLIPS,
    ) -> FeatureStore:
        """Plan a store, or add keys to one.  Running it twice, or from several jobs at once, changes nothing.

        Args:
            job_clips: clips per job at the finest; blocks never cross such a boundary.
        Raises:
            StoreError: the folder is a store of another manifest or job size, or is something else and not empty.
        """
        path = Path(path)
        if not (path / "zarr.json").exists():
            if path.exists() and any(path.iterdir()):
                raise StoreError(f"{path}: exists, is not empty and is no feature store; choose another --store")
            facts = {
                "format": _FORMAT,
                "dataset": manifest.dataset,
                "manifest": manifest.digest,
                "clips": len(manifest),
                "job_clips": job_clips,
            }
            _create_group(path, {"clave": facts, "Conventions": "CF-1.11"})
            _create_group(path / "commits", {"about": "one JSON record per finished block; not arrays"})
        store = cls(path, mode="r+")
        if store.facts["manifest"] != manifest.digest:
            raise StoreError(
                f"{path}: belongs to another manifest ({store.facts['dataset']}, {store.facts['clips']} clips, digest "
                f"{store.facts['manifest'][:12]}; given: {manifest.dataset}, {len(manifest)} clips, "
                f"{manifest.digest[:12]}). Use another --store, or the manifest it was made for."
            )
        if store.facts["job_clips"] != job_clips:
            raise StoreError(
                f"{path}: was planned for jobs of {store.facts['job_clips']} clips, not {job_clips}; "
                f"pass --job-clips {store.facts['job_clips']} or use another --store"
            )
        for spec in specs:
            if not (path / spec.key / "zarr.json").exists():
                store._add_key(manifest, spec)
        return store

    def _add_key(self, manifest: Manifest, spec: FeatureSpec) -> None:
        """Create the arrays of a key beside the store and move them in whole, so a key is planned or absent."""
        layout = plan(manifest, spec, self.facts["job_clips"])
        count, block, rows = len(manifest), layout.block_clips, layout.segments
        beside = self.path / f".{spec.key}.{os.getpid()}.partial"
        attributes = {
            "clave": {"spec": spec.to_dict(), "block_clips": block, "segments": rows},
            "title": f"{spec.name} features of {manifest.dataset}",
            "source": f"{spec.name}, weights {spec.weights}",
        }
        group = zarr.create_group(beside, attributes=attributes, overwrite=True)
        shape = tuple(spec.shape)
        sharded = {
            "compressors": zarr.codecs.ZstdCodec(level=1, checksum=True),
            "config": {"write_empty_chunks": True},
        }
        group.create_array(
            "values",
            shape=(count, rows, *shape),
            chunks=(1, rows, *shape),
            shards=(block, rows, *shape),
            dtype=spec.dtype,
            fill_value=float("nan") if np.dtype(spec.dtype).kind == "f" else 0,
            dimension_names=("clip", "segment", *_AXES.get(len(shape), [f"axis_{i}" for i in range(len(shape))])),
            attributes={"long_name": f"{spec.encoder} {spec.layer}", "coordinates": "segments"},
            **sharded,
        )
        group.create_array(
            "segments",
            shape=(count, rows, 2),
            chunks=(block, rows, 2),
            dtype="float64",
            fill_value=float("nan"),
            dimension_names=("clip", "segment", "bound"),
            attributes={"long_name": "start and end of each row from the start of the clip", "units": "s"},
            **sharded,
        )
        group.create_array(
            "length",
            shape=(count,),
            chunks=(block,),
            dtype="int32",
            fill_value=0,
            dimension_names=("clip",),
            attributes={"long_name": "rows of the clip that are filled"},
            **sharded,
        )
        group.create_array(
            "outcome",
            shape=(count,),
            chunks=(block,),
            dtype="uint8",
            fill_value=CODES["pending"],
            dimension_names=("clip",),
            attributes={"flag_values": list(range(len(OUTCOMES))), "flag_meanings": " ".join(OUTCOMES)},
            **sharded,
        )
        ids = group.create_array(
            "clip", shape=(count,), chunks=(max(count, 1),), dtype=str, fill_value="", dimension_names=("clip",)
        )
        ids[:] = np.array(manifest.ids, dtype=object)
        try:
            os.replace(beside, self.path / spec.key)
        except OSError:  # another job planned the same key at the same moment: its arrays are the same
            _remove_tree(beside)
            if not (self.path / spec.key / "zarr.json").exists():
                raise

    # ---- reading ------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """A store for reading.

        Raises:
            StoreError: no store there.
        """
        return cls(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def keys(self) -> list[str]:
        """Planned keys, sorted."""
        return sorted(
            entry.name
            for entry in self.path.iterdir()
            if not entry.name.startswith(".") and entry.name != "commits" and (entry / "zarr.json").exists()
        )

    def key(self, name: str) -> str:
        """The one key that a name stands for: a key itself, or `encoder:recipe` if only one key has that name.

        Raises:
            StoreError: none or several; the message lists what is there.
        """
        keys = self.keys()
        if name in keys:
            return name
        matches = [key for key in keys if self.spec(key).name == name]
        if len(matches) == 1:
            return matches[0]
        why = f"several keys: {', '.join(matches)}" if matches else f"keys here: {', '.join(keys) or 'none'}"
        hint = "" if matches else f" Make it: python -m pipeline.extract --encoders {name} ..."
        raise StoreError(f"{self.path}: no single feature called {name!r}; {why}.{hint}")

    def _key_facts(self, key: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / key / "zarr.json").read_text())["attributes"]["clave"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{self.path}: no key {key!r}; keys here: {', '.join(self.keys()) or 'none'}") from error

    def spec(self, key: str) -> FeatureSpec:
        if key not in self._specs:
            self._specs[key] = FeatureSpec.from_dict(self._key_facts(key)["spec"])
        return self._specs[key]

    def plan(self, key: str) -> Plan:
        if key not in self._plans:
            facts = self._key_facts(key)
            self._plans[key] = Plan(facts["block_clips"], facts["segments"])
        return self._plans[key]

    def array(self, key: str, name: str) -> zarr.Array:
        """One of `values`, `segments`, `length`, `outcome`, `clip` of a key."""
        if (key, name) not in self._arrays:
            self.spec(key)
            array = zarr.open_array(self.path / key / name, mode="r+" if not self._group.read_only else "r")
            self._arrays[key, name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[key, name]

    def values(self, key: str) -> zarr.Array:
        """(clip, segment, *spec.shape) array, lazily read."""
        return self.array(key, "values")

    @property
    def ids(self) -> tuple[str, ...]:
        """Clip ids in row order."""
        return tuple(self._row_table())

    def row(self, clip_id: str) -> int:
        """Row number of a clip.

        Raises:
            StoreError: the clip is not in the store's manifest.
        """
        rows = self._row_table()
        if clip_id not in rows:
            raise StoreError(f"{self.path}: no clip {clip_id!r} among {len(rows)} clips")
        return rows[clip_id]

    def _row_table(self) -> dict[str, int]:
        if self._rows is None:
            keys = self.keys()
            if not keys:
                raise StoreError(f"{self.path}: no key is planned yet")
            self._rows = {str(clip_id): row for row, clip_id in enumerate(self.array(keys[0], "clip")[:])}
        return self._rows

    def read(self, clip_id: str, key: str) -> np.ndarray:
        """(length, *spec.shape): the rows of one clip.

        Raises:
            NoRows: the clip has none; `.outcome` says why.
            StoreError: unknown key or clip.
        """
        row = self.row(clip_id)
        length = int(self.array(key, "length")[row])
        if length == 0:
            raise NoRows(clip_id, key, OUTCOMES[int(self.array(key, "outcome")[row])])
        return self.values(key)[row][:length]

    def times(self, clip_id: str, key: str) -> np.ndarray:
        """(length, 2) float64 seconds of the rows of one clip."""
        row = self.row(clip_id)
        return self.array(key, "segments")[row][: int(self.array(key, "length")[row])]

    def outcomes(self, key: str) -> dict[str, str]:
        """Outcome of every clip, in row order."""
        codes = self.array(key, "outcome")[:]
        return {clip_id: OUTCOMES[code] for clip_id, code in zip(self.ids, codes, strict=True)}

    def reasons(self, key: str) -> dict[str, str]:
        """Message of every clip that failed, from the commit records."""
        found: dict[str, str] = {}
        for path in sorted((self.path / "commits" / key).glob("*.json")):
            found.update(json.loads(path.read_text())["reasons"])
        return found

    def ok_rows(self, key: str, span: range) -> list[int]:
        """Rows of `span` whose outcome is `ok`."""
        codes = self.array(key, "outcome")[span.start : span.stop]
        return [span.start + int(offset) for offset in np.flatnonzero(codes == CODES["ok"])]

    # ---- blocks -------------------------------------------------------------------------------------------------

    def blocks(self, key: str, rows: range | None = None) -> Iterator[tuple[int, range]]:
        """(number, rows) of every block of a key that lies in `rows`, all rows by default."""
        size = self.plan(key).block_clips
        rows = rows if rows is not None else range(self.facts["clips"])
        for start in range(rows.start, rows.stop, size):
            yield start // size, range(start, min(start + size, self.facts["clips"]))

    def commit_path(self, key: str, block: int) -> Path:
        return self.path / "commits" / key / f"{block:06d}.json"

    def commit(self, key: str, block: int) -> dict[str, Any] | None:
        """Commit record of a block, None if it is not done."""
        try:
            return json.loads(self.commit_path(key, block).read_text())
        except FileNotFoundError:
            return None

    def missing(self, key: str, rows: range | None = None) -> list[range]:
        """Blocks that are not committed, as ranges of rows."""
        return [span for block, span in self.blocks(key, rows) if not self.commit_path(key, block).exists()]

    def writer(self, key: str, block: int) -> BlockWriter:
        """The one writer of a block.

        Raises:
            StoreError: the store was opened for reading.
        """
        if self._group.read_only:
            raise StoreError(f"{self.path}: opened for reading; FeatureStore.create opens it for writing")
        return BlockWriter(self, key, block)

    def verify(self, deep: bool = True) -> list[str]:
        """Everything wrong with the committed blocks, one sentence each; uncommitted blocks are not wrong.

        Args:
            deep: also read the values: rows of `ok` clips must be finite and as long as `length` says.
        """
        found = []
        for key in self.keys():
            for block, span in self.blocks(key):
                record = self.commit(key, block)
                if record is not None:
                    found += [f"{key} block {block} (clips {span.start}..{span.stop - 1}): {problem}"
                              for problem in self._block_problems(key, span, record, deep)]  # fmt: skip
        for partial in sorted(self.path.rglob("*.partial")):
            found.append(f"{partial.relative_to(self.path)}: left over by a killed process; `sweep` removes it")
        return found

    def _block_problems(self, key: str, span: range, record: dict[str, Any], deep: bool) -> list[str]:
        found = []
        for name, digest in record["files"].items():
            path = self.path / name
            if not path.exists():
                found.append(f"{name} is missing")
            elif sha256_of(path) != digest:
                found.append(f"{name} differs from what was committed")
        if found or not deep:
            return found
        outcome = self.array(key, "outcome")[span.start : span.stop]
        counts = dict(Counter(OUTCOMES[code] for code in outcome))
        if counts != record["outcomes"]:
            found.append(f"outcomes are {counts}, the record says {record['outcomes']}")
        length = self.array(key, "length")[span.start : span.stop]
        for offset, row in enumerate(span):
            values = self.values(key)[row]
            filled = int(length[offset])
            if (outcome[offset] == CODES["ok"]) != (filled > 0):
                found.append(f"clip row {row} has outcome {OUTCOMES[outcome[offset]]} and {filled} rows")
            if values.dtype.kind == "f" and not np.isfinite(values[:filled]).all():
                found.append(f"clip row {row} holds NaN or infinity")
        return found

    def forget(self, key: str, block: int) -> None:
        """Drop a block's commit record, so that the next `extract` makes it again."""
        self.commit_path(key, block).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what killed processes left over; only while no job is writing.  Returns the number removed."""
        left = [path for path in self.path.rglob("*.partial")]
        for path in left:
            _remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(left)


def _create_group(path: Path, attributes: dict[str, Any]) -> None:
    """A Zarr group that appears whole, also when several jobs make it at once."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _remove_tree(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
