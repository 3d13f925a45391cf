"""Reading a store: what is there, which clips have rows, and the rows.

Only what a commit record vouches for counts.  What other processes change on disk is noticed within a second.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from extractors.spec import FeatureSpec
from pipeline import shards
from pipeline.blocks import StoreError, part_of
from pipeline.layout import Plan
from pipeline.outcomes import CODES, MEANING, OUTCOMES
from pipeline.run import sha256_of
from pipeline.shards import ClipReader, DamagedShard, read_column

FORMAT = 1


class NoRows(KeyError):
    """A clip has no rows under a key; `outcome` says why."""

    def __init__(self, clip_id: str, key: str, outcome: str) -> None:
        self.clip_id, self.key, self.outcome = clip_id, key, outcome
        super().__init__(f"clip {clip_id} has no rows under {key}: {MEANING[outcome]} ({outcome})")

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True)
class _Committed:
    """Outcome and length of the clips of one committed block, with what identifies the commit."""

    signature: tuple[int, int]
    checked_s: float
    outcome: np.ndarray
    length: np.ndarray


class StoreReader:
    """A store on disk, for reading, from any number of threads and processes, forked or spawned.

    It leaves out how the features were made.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "r") -> None:
        self.path = Path(path)
        try:
            self.facts: dict[str, Any] = json.loads((self.path / "zarr.json").read_text())["attributes"]["clave"]
        except (FileNotFoundError, NotADirectoryError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path}: not a feature store; `python -m pipeline.extract` makes one") from error
        except ValueError as error:
            raise StoreError(f"{self.path / 'zarr.json'}: damaged ({error})") from error
        if self.facts["format"] != FORMAT:
            raise StoreError(f"{self.path}: store format {self.facts['format']}, this version reads {FORMAT}")
        self._writable = mode != "r"
        self._specs: dict[str, FeatureSpec] = {}
        self._plans: dict[str, Plan] = {}
        self._arrays: dict[tuple[str, str], zarr.Array] = {}
        self._readers: dict[str, ClipReader | None] = {}
        self._blocks: dict[tuple[str, int], _Committed] = {}
        self._rows: dict[str, int] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
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
            if entry.name[0] != "." and entry.name != "commits" and (entry / "zarr.json").exists()
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def key(self, name: str) -> str:
        """The one key that a name stands for.

        Args:
            name: a key itself; `encoder:recipe` if only one key has that name; or `encoder:recipe=WEIGHTS` with
                `pretrained`, `random:SEED` or the checkpoint file that made it.
        Raises:
            StoreError: none or several; the message lists what is there.
        """
        keys = self.keys()
        if name in keys:
            return name
        feature, _, choice = name.partition("=")
        matches = [key for key in keys if self.spec(key).name == feature]
        if choice:
            matches = [key for key in matches if _made_with(self.spec(key), choice)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            why = f"several keys: {', '.join(matches)}. Give one of them, or {feature}=WEIGHTS."
        else:
            have = ", ".join(keys) or "none"
            why = f"keys here: {have}. Make it: python -m pipeline.extract --encoders {feature} ..."
        raise StoreError(f"{self.path}: no single feature called {name!r}; {why}")

    def _key_facts(self, key: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / key / "zarr.json").read_text())["attributes"]["clave"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{self.path}: no key {key!r}; keys here: {', '.join(self.keys()) or 'none'}") from error
        except (ValueError, KeyError) as error:
            raise StoreError(
                f"{self.path / key / 'zarr.json'}: damaged ({error}); remove {key} and make it again"
            ) from error

    def spec(self, key: str) -> FeatureSpec:
        if key not in self._specs:
            self._specs[key] = FeatureSpec.from_dict(self._key_facts(key)["spec"])
        return self._specs[key]

    def companion(self, key: str) -> dict[str, Any]:
        """Facts that the key carries beside its rows; empty for features."""
        return self._key_facts(key).get("companion", {})

    def plan(self, key: str) -> Plan:
        if key not in self._plans:
            facts = self._key_facts(key)
            rows = facts["segments"]
            self._plans[key] = Plan(
                facts["block_clips"], rows, facts.get("chunk_rows", rows), facts.get("ragged", False)
            )
        return self._plans[key]

    def clip_bytes(self, key: str) -> int:
        """Size of the rows of a clip of full length."""
        spec = self.spec(key)
        return self.plan(key).segments * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize

    def array(self, key: str, name: str) -> zarr.Array:
        """One of `values`, `segments`, `length`, `outcome`, `clip` of a key."""
        if (key, name) not in self._arrays:
            self.spec(key)
            array = zarr.open_array(self.path / key / name, mode="r+" if self._writable else "r")
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
            StoreError: unknown key or clip, damaged shard.
        """
        row = self.row(clip_id)
        outcome, length = self._state(key, row)
        if length == 0:
            raise NoRows(clip_id, key, outcome)
        return self.rows_at(key, row, length)

    def rows_at(self, key: str, row: int, length: int) -> np.ndarray:
        """The first `length` rows of the clip in row `row`, whatever the commit records say."""
        reader = self._reader(key)
        try:
            return self.values(key)[row][:length] if reader is None else reader.read(row, length)
        except (DamagedShard, FileNotFoundError) as error:
            raise self._remedy(error) from error

    def rows_into(self, key: str, rows: Sequence[int], out: np.ndarray) -> None:
        """The first rows of many clips at once, whatever the commit records say: the fast way to read a batch.

        Args:
            rows: row numbers of n clips.
            out: (n, length, *spec.shape) to fill, in C order and of the key's dtype.
        """
        reader = self._reader(key)
        if reader is None:
            out[...] = self.values(key).oindex[np.asarray(rows)][:, : out.shape[1]]
            return
        try:
            reader.read_into(rows, out)
        except (DamagedShard, FileNotFoundError) as error:
            raise self._remedy(error) from error

    def _reader(self, key: str) -> ClipReader | None:
        if key not in self._readers:
            self.spec(key)
            self._readers[key] = ClipReader.open(self.path / key / "values")
        return self._readers[key]

    def _remedy(self, error: Exception) -> StoreError:
        """The error with what helps against it."""
        return StoreError(
            f"{error}. `python -m pipeline.verify --store {self.path} --forget` lets extract make the block again"
        )

    def _state(self, key: str, row: int) -> tuple[str, int]:
        """Outcome and number of rows of a clip; `pending` and 0 while its block is not committed."""
        block, offset = divmod(row, self.plan(key).block_clips)
        committed = self._committed(key, block)
        if committed is None:
            return "pending", 0
        return OUTCOMES[committed.outcome[offset]], int(committed.length[offset])

    def _committed(self, key: str, block: int) -> _Committed | None:
        known = self._blocks.get((key, block))
        now_s = time.monotonic()
        if known is not None and now_s - known.checked_s <= shards.FRESH_S:
            return known
        for path in self.record_paths(key, block):
            try:
                status = os.stat(path)
                break
            except FileNotFoundError:
                continue
        else:
            return None
        signature = (status.st_ino, status.st_mtime_ns)
        if known is not None and known.signature == signature:
            known = dataclasses.replace(known, checked_s=now_s)
        else:
            span = self.block_span(key, block)
            try:
                outcome, length = (
                    read_column(self.path / key / name, block, dtype)[: len(span)]
                    for name, dtype in (("outcome", "u1"), ("length", "<i4"))
                )
            except (DamagedShard, FileNotFoundError) as error:
                raise self._remedy(error) from error
            known = _Committed(signature, now_s, outcome, length)
        self._blocks[key, block] = known
        return known

    def times(self, clip_id: str, key: str) -> np.ndarray:
        """(length, 2) float64 seconds of the rows of one clip."""
        row = self.row(clip_id)
        return self.array(key, "segments")[row][: self._state(key, row)[1]]

    def lengths(self, key: str) -> np.ndarray:
        """(clips,) int32: number of rows of every clip, 0 where it has none."""
        found = np.zeros(self.facts["clips"], np.int32)
        for block, span in self.blocks(key):
            if (committed := self._committed(key, block)) is not None:
                found[span.start : span.stop] = committed.length
        return found

    def outcomes(self, key: str) -> dict[str, str]:
        """Outcome of every clip, in row order; `pending` where the block is not committed."""
        codes = np.full(self.facts["clips"], CODES["pending"], np.uint8)
        for block, span in self.blocks(key):
            if (committed := self._committed(key, block)) is not None:
                codes[span.start : span.stop] = committed.outcome
        return {clip_id: OUTCOMES[code] for clip_id, code in zip(self.ids, codes, strict=True)}

    def reasons(self, key: str) -> dict[str, str]:
        """Message of every clip that failed, from the commit records."""
        found: dict[str, str] = {}
        for block, _ in self.blocks(key):
            found.update((self.commit(key, block) or {"reasons": {}})["reasons"])
        return found

    def notes(self, key: str) -> dict[str, str]:
        """What the writer had to say of clips that have rows, from the commit records."""
        found: dict[str, str] = {}
        for block, _ in self.blocks(key):
            found.update((self.commit(key, block) or {}).get("notes", {}))
        return found

    def row_outcomes(self, key: str, span: range) -> dict[int, str]:
        """Outcome by row."""
        return {row: self._state(key, row)[0] for row in span}

    # ---- blocks -------------------------------------------------------------------------------------------------

    def blocks(self, key: str, rows: range | None = None) -> Iterator[tuple[int, range]]:
        """(number, rows) of every block of a key that lies in `rows`, all rows by default."""
        size = self.plan(key).block_clips
        rows = rows if rows is not None else range(self.facts["clips"])
        for start in range(rows.start, rows.stop, size):
            yield start // size, range(start, min(start + size, self.facts["clips"]))

    def block_span(self, key: str, block: int) -> range:
        """Rows of a block."""
        size = self.plan(key).block_clips
        return range(block * size, min((block + 1) * size, self.facts["clips"]))

    def commit_path(self, key: str, block: int) -> Path:
        return self.path / "commits" / key / f"{block:06d}.json"

    def record_paths(self, key: str, block: int) -> tuple[Path, Path]:
        """Where the record of a block may lie: of all of its clips, or of those that it had before the store grew."""
        whole = self.commit_path(key, block)
        return whole, part_of(whole)

    def commit(self, key: str, block: int) -> dict[str, Any] | None:
        """Commit record of a block, None if none of its clips is done.  In a store that has grown the record may be
        of the block's first clips only; then the block is `missing` too.

        Raises:
            StoreError: the record is damaged.
        """
        for path in self.record_paths(key, block):
            try:
                record = json.loads(path.read_text())
            except FileNotFoundError:
                continue
            except ValueError as error:
                raise StoreError(
                    f"{path}: damaged commit record ({error}); `python -m pipeline.verify --forget`"
                ) from error
            if not isinstance(record, dict):
                raise StoreError(f"{path}: damaged commit record; `python -m pipeline.verify --forget`")
            return record
        return None

    def is_done(self, key: str, block: int) -> bool:
        """Whether every clip of a block has rows or a reason."""
        return self.commit_path(key, block).exists()

    def missing(self, key: str, rows: range | None = None) -> list[range]:
        """Blocks that are not done, as ranges of rows."""
        return [span for block, span in self.blocks(key, rows) if not self.is_done(key, block)]

    def refresh(self) -> None:
        """Read everything from disk again; what other processes change is noticed without it within a second."""
        self._blocks.clear()
        self._readers.clear()


def _made_with(spec: FeatureSpec, choice: str) -> bool:
    """Whether `pretrained`, `random:SEED` or a checkpoint file made a feature."""
    if choice == "pretrained":
        from extractors.recipes import recipe

        published = recipe(spec.name).weights
        return published is not None and spec.weights.startswith(f"sha256:{published.sha256 or ''}")
    return spec.weights == (choice if choice.startswith("random:") else f"sha256:{sha256_of(choice)}")
