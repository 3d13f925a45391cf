"""The unit of work and of loss: a run of clips that is one shard file of each array, written whole or not at all.

A writer prepares all files of its block in a scratch folder inside the store, forgets the block's earlier commit, moves
the files in and writes the new commit record last.  Whatever happens before the move leaves the earlier block
untouched: a full disk, a crash, a refused second writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.layout import ARRAYS, shard_files
from pipeline.outcomes import CODES, OUTCOMES
from pipeline.run import sha256_of, staged_json

if TYPE_CHECKING:
    from pipeline.store import FeatureStore


PARTIAL = ".partial"


class StoreError(ValueError):
    """A store cannot be used as asked; the message says which file or key and what to do."""


class Scratch:
    """A folder for one block that only one process can hold.  The system frees it when that process dies.

    Where the file system has no locks, a second writer goes unnoticed: each works in a folder of its own within, and
    the commit of one replaces the other's, whole.

    Args:
        path: of the folder; `self.path` is where this process may write.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path
        while True:
            path.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDONLY)
            try:
                locked = _lock(self._handle)
                if locked is False:
                    raise StoreError(
                        f"{path}: another process is writing this block. "
                        "One job owns one block: let it finish, or stop it."
                    )
                if _same_folder(self._handle, path):  # else its last holder removed it between mkdir and lock
                    break
            except StoreError:
                self._close()
                raise
            self._close()
        for entry in path.iterdir() if locked else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.path = Path(tempfile.mkdtemp(dir=path))

    def release(self) -> None:
        """Remove what this process wrote, and give the folder up."""
        if self._handle >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another writer's files, where there are no locks
                self._folder.rmdir()
            self._close()

    def _close(self) -> None:
        if (handle := getattr(self, "_handle", -1)) >= 0:
            self._handle = -1
            os.close(handle)

    def __del__(self) -> None:
        self._close()


def remove_left(path: Path) -> None:
    """Remove a `Scratch` folder whose process was killed, though after it had put the block in its place."""
    if path.is_dir():
        with contextlib.suppress(StoreError):  # somebody is at work there
            Scratch(path).release()


def in_use(path: Path) -> bool:
    """Whether a living process holds a folder, as `Scratch` and `held` do."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return _lock(handle) is False
    finally:
        os.close(handle)


@contextlib.contextmanager
def held(parent: Path, key: str) -> Iterator[Path]:
    """A new folder beside the keys of a store, for this process alone, that is gone when the block ends."""
    path = Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=PARTIAL, dir=parent))
    handle = os.open(path, os.O_RDONLY)
    try:
        _lock(handle)
        yield path
    finally:
        os.close(handle)
        shutil.rmtree(path, ignore_errors=True)


def _lock(handle: int) -> bool | None:
    """Take a folder: True if this process has it now, False if another has, None if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def scratch_path(store: Path, key: str, block: int) -> Path:
    """Where the one writer of a block works."""
    return store / f".{key}.{block:06d}{PARTIAL}"


def part_of(record_path: Path) -> Path:
    """Where the record of a block lies that was whole until the store grew: it speaks of the block's first clips."""
    return record_path.with_suffix(".part.json")


def _same_folder(handle: int, path: Path) -> bool:
    try:
        return os.fstat(handle).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


class BlockWriter:
    """Collects the rows of one block in memory and commits them together.

    Every clip of the block must be given rows (`put`) or a reason (`fail`) before `commit`.

    Args:
        made_by: digest of the code that makes the rows, kept in the record; see `pipeline.planning.code_digest`.
        facts: more for the record.
    Raises:
        StoreError: another process is writing the block.
    """

    def __init__(
        self, store: FeatureStore, key: str, block: int, made_by: str = "", facts: dict[str, Any] | None = None
    ) -> None:
        self._made_by, self._facts = made_by, facts or {}
        layout, spec = store.plan(key), store.spec(key)
        self.store, self.key, self.block, self.spec = store, key, block, spec
        start = block * layout.block_clips
        self.span = range(start, min(start + layout.block_clips, store.facts["clips"]))
        if block < 0 or not len(self.span):
            raise StoreError(f"{store.path}: {key} has no block {block}")
        self._scratch = Scratch(scratch_path(store.path, key, block))
        count = len(self.span)
        fill = np.nan if np.dtype(spec.dtype).kind == "f" else 0
        self._values = np.full((count, layout.segments, *spec.shape), fill, dtype=spec.dtype)
        self._segments = np.full((count, layout.segments, 2), np.nan)
        self._length = np.zeros(count, dtype=np.int32)
        self._outcome = np.zeros(count, dtype=np.uint8)
        self._reasons: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    @property
    def open_rows(self) -> list[int]:
        """Rows that still have no outcome."""
        return [row for row, code in zip(self.span, self._outcome, strict=True) if code == CODES["pending"]]

    def put(self, row: int, values: np.ndarray, segments: np.ndarray) -> None:
        """Rows of one clip.

        Args:
            row: row number in the manifest.
            values: (T, *spec.shape).
            segments: (T, 2) seconds.
        Raises:
            StoreError: wrong shape, no row at all, too many rows, rows and times that do not agree.
        """
        wanted = self._values.shape[2:]
        fits = values.ndim == 1 + len(wanted) and values.shape[1:] == wanted
        if not fits or not 0 < len(values) <= self._values.shape[1]:
            raise StoreError(
                f"{self.key}, clip row {row}: rows of shape {values.shape}; "
                f"planned are 1 to {self._values.shape[1]} rows of {wanted}"
            )
        if np.shape(segments) != (len(values), 2):
            raise StoreError(f"{self.key}, clip row {row}: {len(values)} rows, but times of shape {np.shape(segments)}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            self.fail(row, "non-finite", f"{int((~np.isfinite(values)).sum())} values are NaN or infinite")
            return
        offset = self._offset(row)
        self._values[offset, : len(values)] = values
        self._segments[offset, : len(values)] = segments
        self._length[offset] = len(values)
        self._outcome[offset] = CODES["ok"]

    def fail(self, row: int, outcome: str, reason: str) -> None:
        """The reason why a clip has no rows."""
        self._outcome[self._offset(row)] = CODES[outcome]
        self._reasons[self.store.ids[row]] = reason

    def note(self, row: int, text: str) -> None:
        """What a reader of the store should know about a clip that has rows; kept in the commit record."""
        self._notes[self.store.ids[row]] = text

    def _offset(self, row: int) -> int:
        if row not in self.span:
            raise StoreError(f"{self.key}: row {row} is not in block {self.block} ({self.span.start}..)")
        return row - self.span.start

    def keep(self, unless: set[int]) -> None:
        """Take over what an earlier commit of this block says of its clips, except of the rows in `unless`."""
        kept = np.array([row not in unless for row in self.span])
        record = self.store.commit(self.key, self.block) or {}
        ids = {self.store.ids[row] for row in self.span if row not in unless}
        for name, own in (("reasons", self._reasons), ("notes", self._notes)):
            own.update({clip_id: text for clip_id, text in record.get(name, {}).items() if clip_id in ids})
        if kept.any():
            span = slice(self.span.start, self.span.stop)
            self._values[kept] = self.store.values(self.key)[span][kept]
            self._segments[kept] = self.store.array(self.key, "segments")[span][kept]
            self._length[kept] = self.store.array(self.key, "length")[span][kept]
            self._outcome[kept] = self.store.array(self.key, "outcome")[span][kept]

    def keep_row(self, row: int, note: str) -> None:
        """Take over the rows of one clip that were made in another way, and say so in a note.

        The record then says of the whole block that it was made in that way, so that the next run tries again.
        """
        record, clip_id = self.store.commit(self.key, self.block), self.store.ids[row]
        self.put(row, self.store.read(clip_id, self.key), self.store.times(clip_id, self.key))
        self.note(row, note)
        self._made_by = record.get("made_by", "")
        self._facts = {name: record[name] for name in self._facts if name in record}

    def commit(self) -> dict[str, int]:
        """Write the four shard files, then the record that makes them count.  Returns counts by outcome.

        Raises:
            StoreError: some clip has neither rows nor a reason.
            OSError: a full disk, a read-only folder; an earlier commit of the block is then still there.
        """
        if left := self.open_rows:
            raise StoreError(f"{self.key} block {self.block}: no outcome yet for clip rows {left[:10]}")
        paths = shard_files(self.key, self.block, len(self.spec.shape))
        try:
            made = self._write_shards(paths)
            counts = dict(Counter(OUTCOMES[code] for code in self._outcome))
            record = {
                "key": self.key,
                "block": self.block,
                "clips": [self.span.start, self.span.stop],
                "made_by": self._made_by,
                **self._facts,
                "outcomes": counts,
                "reasons": self._reasons,
                **({"notes": self._notes} if self._notes else {}),
                "files": {paths[name]: sha256_of(path) for name, path in made.items()},
            }
            self.store.install(self.key, self.block, {paths[name]: path for name, path in made.items()}, record)
        finally:
            self._scratch.release()
        return counts

    def _write_shards(self, paths: dict[str, str]) -> dict[str, Path]:
        """The block's shard files, written through Zarr into copies of the arrays that have this block only."""
        span = slice(self.span.start, self.span.stop)
        made = {}
        for name, data in zip(ARRAYS, (self._values, self._segments, self._length, self._outcome), strict=True):
            folder = self._scratch.path / name
            folder.mkdir()
            shutil.copyfile(self.store.path / self.key / name / "zarr.json", folder / "zarr.json")
            # A clip without rows takes no room in `values`, however wide a row: most of a dataset may be absent.
            # Only where the fill value is NaN, which no row holds: rows of integers may well be nothing but zeros.
            sparse = name == "values" and data.dtype.kind == "f"
            array = zarr.open_array(folder, mode="r+").with_config({"write_empty_chunks": not sparse})
            array[span] = data
            path = folder / Path(*Path(paths[name]).parts[2:])
            if not sparse or path.exists():
                made[name] = path
        return made


def install(store: Path, files: dict[str, Path], record_path: Path, record: dict[str, Any]) -> None:
    """Move finished shard files into a store and make them count.

    Args:
        store: its folder.
        files: path inside the store -> finished file on the same file system.  Where no clip has rows there is none of
            values; one that lies there is removed.
        record_path: of the commit record; an earlier one is removed before the first file is replaced.
        record: content of the commit record.
    """
    axes = len(json.loads((store / record["key"] / "values" / "zarr.json").read_text())["shape"]) - 2
    gone = set(shard_files(record["key"], record["block"], axes).values()) - set(files)
    with staged_json(record_path, record):
        for name, path in files.items():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            (store / name).parent.mkdir(parents=True, exist_ok=True)
        record_path.unlink(missing_ok=True)
        part_of(record_path).unlink(missing_ok=True)
        for name, path in files.items():
            os.replace(path, store / name)
        for name in gone:
            (store / name).unlink(missing_ok=True)
