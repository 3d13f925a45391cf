"""The Parquet file of a manifest: a row per clip, facts and digests as JSON in its metadata; read whole or in parts."""

from __future__ import annotations

import bisect
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.manifest import Clip, Manifest, ManifestError, clip_bytes, media_digest, shard

if TYPE_CHECKING:
    import pyarrow as pa

_FORMAT = 1
#: Clips of one row group.  Each has a digest of its own, so that a job can check its part without the rest.
PART_CLIPS = 4096
#: Clips of one job at the finest; every block size of a store divides it.
JOB_CLIPS = 256


def write(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a manifest atomically, part by part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [manifest.clips[start : start + PART_CLIPS] for start in range(0, len(manifest), PART_CLIPS)]
    header = {
        "format": _FORMAT,
        "dataset": manifest.dataset,
        "classes": manifest.classes,
        "facts": manifest.facts,
        "digest": manifest.digest,
        "media": manifest.media_digest(len(manifest)),
        "parts": [_part_digest(part) for part in parts],
    }
    schema = _schema().with_metadata({"clave": json.dumps(header, sort_keys=True)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, schema) as writer:
        for part in parts or [()]:
            writer.write_table(pa.Table.from_pylist([clip.to_dict() for clip in part], schema=schema))
    os.replace(partial, path)


class ManifestFile:
    """A manifest on disk, of which a job reads its own clips only: memory follows the job, not the dataset.

    It answers what a store is planned from as a `Manifest` does: `dataset`, `len`, `digest`, `media_digest`, `ids`,
    `durations`, `shard`.  Digests are those that the file was written with; `part` notices clips that were changed
    behind their back.

    Raises:
        ManifestError: not a manifest, or one of another format version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = Path(path)
        try:
            self._file = pq.ParquetFile(self.path)
            header = json.loads((self._file.schema_arrow.metadata or {})[b"clave"])
            missing = [name for name in _schema().names if name not in self._file.schema_arrow.names]
            if missing:
                raise ValueError(f"no column {missing[0]}")
        except FileNotFoundError as error:
            raise ManifestError(str(path), ["no such file; `python -m pipeline.prepare` writes it"]) from error
        except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
            raise ManifestError(str(path), [f"not a manifest ({error})"]) from error
        if header["format"] != _FORMAT:
            raise ManifestError(str(path), [f"format {header['format']}, this version reads {_FORMAT}"])
        self._header = header
        self.dataset: str = header["dataset"]
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.facts: dict[str, Any] = header["facts"]

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    @functools.cached_property
    def digest(self) -> str:
        """As `Manifest.digest`."""
        # Files written before digests were stored have none: those are read whole.
        return self._header.get("digest") or self._whole().digest

    def media_digest(self, count: int) -> str:
        """As `Manifest.media_digest`; reads clips only for a `count` other than all."""
        if count == len(self) and "media" in self._header:
            return self._header["media"]
        return media_digest(self.clips(range(count)))

    @property
    def ids(self) -> np.ndarray:
        """(clips,) array of str."""
        # Not `to_numpy`, which loads pandas for it: half a second of every command.
        return np.array(self.table(range(len(self)), ["id"])["id"].to_pylist(), dtype=object)

    @functools.cached_property
    def durations(self) -> frozenset[float | None]:
        """Every length that a clip has, seconds."""
        return frozenset(self.table(range(len(self)), ["duration_s"])["duration_s"].unique().to_pylist())

    def shard(self, index: int, count: int, block: int = 256) -> range:
        """As `Manifest.shard`."""
        return shard(len(self), index, count, block)

    def part(self, rows: range) -> Manifest:
        """The clips of some rows as a manifest of their own: row r of the file is clip `r - rows.start` of the part.

        Raises:
            ManifestError: clips differ from what the file's digests say.
        """
        start = rows.start // PART_CLIPS * PART_CLIPS
        stop = min(-(-rows.stop // PART_CLIPS) * PART_CLIPS, len(self))
        clips = list(self.clips(range(start, stop)))
        for first in range(start, stop, PART_CLIPS) if "parts" in self._header else ():
            within = clips[first - start : first - start + PART_CLIPS]
            if _part_digest(within) != self._header["parts"][first // PART_CLIPS]:
                what = f"clips {first} to {first + len(within) - 1} were changed since the file was written"
                raise ManifestError(str(self.path), [f"{what}; read it with Manifest.load and save it again"])
        inside = tuple(clips[rows.start - start : rows.stop - start])
        return Manifest(self.dataset, inside, self.classes, self.facts)

    def clips(self, rows: range) -> Iterator[Clip]:
        """Clips of some rows, read a part at a time."""
        for start in range(rows.start, rows.stop, PART_CLIPS):
            yield from _clips(self.table(range(start, min(start + PART_CLIPS, rows.stop))))

    def table(self, rows: range, columns: list[str] | None = None) -> pa.Table:
        """Some rows as an Arrow table; only the row groups that hold them are read."""
        starts = self._starts
        first = max(bisect.bisect_right(starts, rows.start) - 1, 0)
        last = bisect.bisect_left(starts, rows.stop)
        found = self._file.read_row_groups(range(first, last), columns=columns)
        return found.slice(rows.start - starts[first] if starts else 0, len(rows))

    @functools.cached_property
    def _starts(self) -> list[int]:
        """First row of every row group."""
        starts, row = [], 0
        for group in range(self._file.metadata.num_row_groups):
            starts.append(row)
            row += self._file.metadata.row_group(group).num_rows
        return starts

    def _whole(self) -> Manifest:
        return Manifest(self.dataset, tuple(self.clips(range(len(self)))), self.classes, self.facts)


def load(path: str | os.PathLike[str]) -> Manifest:
    """The whole manifest of a file."""
    return ManifestFile(path)._whole()


def _part_digest(clips: Sequence[Clip]) -> str:
    hasher = hashlib.sha256()
    for clip in clips:
        hasher.update(clip_bytes(clip))
    return hasher.hexdigest()


def _clips(table: pa.Table) -> Iterator[Clip]:
    """Clips of a table, converted column by column: several times faster than row by row."""
    columns = {name: table[name].to_pylist() for name in _schema().names}
    for values in zip(*columns.values(), strict=True):
        yield Clip.from_dict(dict(zip(columns, values, strict=True)))


@functools.cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    event = pa.struct(
        [("label", pa.string()), ("modality", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("source_id", pa.string()),
            ("start_s", pa.float64()),
            ("duration_s", pa.float64()),
            ("split", pa.string()),
            ("labels", pa.list_(pa.string())),
            ("events", pa.list_(event)),
            ("media", pa.string()),
        ]
    )
