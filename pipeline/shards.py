"""Read clips straight from their shard files: positioned reads into the caller's array, and a checksum.

Zarr spends about a millisecond of bookkeeping on each access, more than the access itself.  This reads the same bytes
by the same format (Zarr v3 `sharding_indexed`, index at the end) for the codecs that `pipeline.layout` writes, and
`ClipReader.open` returns None for any other, so that the caller lets Zarr do it.  Shard files stay open: one system
call a clip; positioned reads share no offset, so readers may be shared by threads and survive fork.

What is not in memory yet is asked for before it is waited for: all clips of a batch at once, so that the disk has a
queue to work on, and of narrow features the neighbourhood with them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np

_ABSENT = 2**64 - 1
_OPEN_SHARDS = 128
#: Another process may replace a file; a reader notices after this many seconds and until then reads the old one, whole.
FRESH_S = 1.0
#: A narrow clip that has to come from the disk brings its neighbours along, in aligned pieces of this size.
_FETCH_BYTES = 128 << 10
#: Checksums are computed in pieces of this size, while the processor's cache has them and the disk reads on.
_CHECK_BYTES = 256 << 10
#: Fails instead of waiting for the disk; Linux only.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class DamagedShard(ValueError):
    """A shard file is torn or its bytes changed; the message says which."""


class _Shard:
    """An open shard file with its index.  It is closed when the last reader of it lets go."""

    def __init__(self, path: str, index_bytes: int) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY)
        self.checked_s = time.monotonic()
        status = os.fstat(self.file)
        self.signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        raw = os.pread(self.file, index_bytes + 4, max(status.st_size - index_bytes - 4, 0))
        if len(raw) != index_bytes + 4 or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise DamagedShard(f"{path}: torn, its index does not match its checksum ({status.st_size} bytes)")
        self.places = np.frombuffer(raw, "<u8", index_bytes // 8).reshape(-1, 2)  # offset, number of bytes
        self.sound = np.zeros(len(self.places), bool)  # chunks that this reader has compared with their checksum
        self.nowait = _NOWAIT

    def is_current(self) -> bool:
        """Whether the file is still the one at its path."""
        status = os.stat(self.path)
        self.checked_s = time.monotonic()
        return (status.st_ino, status.st_mtime_ns, status.st_size) == self.signature

    def place(self, number: int) -> tuple[int, int]:
        """Offset and number of bytes of a chunk."""
        start, count = self.places[number].tolist()
        if start == _ABSENT:
            raise DamagedShard(f"{self.path}: a chunk that should hold rows was never written")
        return start, count

    def at_once(self, buffers: list, start: int, count: int) -> bool:
        """Fill the buffers from memory; if that is not possible without waiting, let the disk begin."""
        if self.nowait:
            try:
                if os.preadv(self.file, buffers, start, self.nowait) == count:
                    return True
            except BlockingIOError:
                pass
            except OSError as error:  # a file system that cannot tell
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self.nowait = 0
        if count < _FETCH_BYTES:
            first = start - start % _FETCH_BYTES
            count = -(-(start + count - first) // _FETCH_BYTES) * _FETCH_BYTES
            start = first
        with contextlib.suppress(OSError, AttributeError):  # only advice, which not every system takes
            os.posix_fadvise(self.file, start, count, os.POSIX_FADV_WILLNEED)
        return False

    def compare(self, number: int, checksum: int, stored: bytearray) -> None:
        """Remember that a chunk is sound.

        Raises:
            DamagedShard: it is not.
        """
        if checksum != int.from_bytes(stored, "little"):
            raise self.damage(number)
        self.sound[number] = True

    def damage(self, number: int, what: str = "differ from their checksum") -> DamagedShard:
        """What to raise for a chunk whose bytes are not those that were written."""
        start, count = self.places[number].tolist()
        return DamagedShard(f"{self.path}: bytes {start} to {start + count} {what}")

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class ClipReader:
    """Reads clips of one `values` array.  It leaves out which clips are committed and how long they are.

    A plain chunk is compared with its checksum when this reader first reads it, and again whenever the file changes:
    a training run pays for the check in its first epoch.  zstd checks at every read.
    """

    def __init__(self, folder: Path, shape: list[int], inner: list[int], outer: list[int], dtype: str, codec: str):
        self.folder, self.codec = folder, codec
        self._block, self._chunk_rows = outer[0], inner[1]
        self._chunks = outer[1] // inner[1]
        self._shape = tuple(shape[2:])
        self.dtype = np.dtype(dtype)
        self._tail = ["0"] * (len(shape) - 1)
        self._index_bytes = self._block * self._chunks * 16
        self._shards: dict[int, _Shard] = {}

    @classmethod
    def open(cls, folder: Path) -> ClipReader | None:
        """A reader of the array in `folder`, None if it has another layout than ours."""
        meta = json.loads((folder / "zarr.json").read_text())
        outer = meta["chunk_grid"]["configuration"]["chunk_shape"]
        sharding = meta["codecs"][0]
        if sharding["name"] != "sharding_indexed" or len(meta["codecs"]) != 1:
            return None
        settings = sharding["configuration"]
        inner = settings["chunk_shape"]
        names = [codec["name"] for codec in settings["codecs"]]
        index_names = [codec["name"] for codec in settings["index_codecs"]]
        little = settings["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        fits = (
            names in (["bytes", "crc32c"], ["bytes", "zstd"])
            and little
            and index_names == ["bytes", "crc32c"]
            and settings.get("index_location", "end") == "end"
            and inner[0] == 1
            and inner[2:] == outer[2:] == meta["shape"][2:]
            and outer[1] == meta["shape"][1]
        )
        return cls(folder, meta["shape"], inner, outer, meta["data_type"], names[1]) if fits else None

    def read(self, row: int, length: int) -> np.ndarray:
        """(length, ...) rows of the clip in row `row`.

        Raises:
            DamagedShard: torn file or wrong checksum.
            FileNotFoundError: no such shard.
        """
        whole = -(-length // self._chunk_rows) * self._chunk_rows
        out = np.empty((whole, *self._shape), self.dtype)
        for chunk in self._chunks_of(row, out):
            if not self._begin(*chunk):
                self._finish(*chunk)
        return out[:length]

    def read_into(self, rows: Sequence[int], out: np.ndarray) -> None:
        """Fill `out` with the first rows of many clips: what is in memory first, the others as the disk delivers them.

        Args:
            rows: row numbers of n clips.
            out: (n, length, ...) in C order and of the array's dtype.
        Raises:
            DamagedShard, FileNotFoundError: as `read`.
        """
        whole = out.shape[1] - out.shape[1] % self._chunk_rows
        chunks = [chunk for row, clip in zip(rows, out, strict=True) for chunk in self._chunks_of(row, clip[:whole])]
        chunks.sort(key=lambda chunk: (chunk[0].file, chunk[1]))
        for chunk in [chunk for chunk in chunks if not self._begin(*chunk)]:
            self._finish(*chunk)
        if whole < out.shape[1]:  # only a part of a chunk is wanted
            for row, clip in zip(rows, out, strict=True):
                clip[whole:] = self.read(row, out.shape[1])[whole:]

    def _chunks_of(self, row: int, out: np.ndarray) -> list[tuple[_Shard, int, np.ndarray]]:
        """(shard, number in it, bytes to fill) of the chunks that fill `out`, whole chunks from the clip's start."""
        block, offset = divmod(row, self._block)
        shard = self._shards.get(block)
        if shard is None or time.monotonic() - shard.checked_s > FRESH_S:
            shard = self._open(block, shard)
        flat, first = out.reshape(-1).view(np.uint8), offset * self._chunks
        count = len(out) // self._chunk_rows
        if count == 1:
            return [(shard, first, flat)]
        return [(shard, first + number, part) for number, part in enumerate(np.split(flat, count))] if count else []

    def _open(self, block: int, known: _Shard | None) -> _Shard:
        if known is not None and known.is_current():
            return known
        if len(self._shards) >= _OPEN_SHARDS:
            self._shards.clear()
        shard = _Shard(os.path.join(self.folder, "c", str(block), *self._tail), self._index_bytes)
        self._shards[block] = shard
        return shard

    def _begin(self, shard: _Shard, number: int, out: np.ndarray) -> bool:
        """Fill `out` if the bytes are in memory; else the disk has its orders, and `_finish` waits for it."""
        start, count = shard.place(number)
        if self.codec != "crc32c":
            raw = bytearray(count)
            if not shard.at_once([raw], start, count):
                return False
            _decode(raw, out, shard, number)
            return True
        stored = bytearray(4)
        if not shard.at_once([out, stored], start, out.nbytes + 4):
            return False
        if not shard.sound[number]:
            shard.compare(number, google_crc32c.value(out), stored)
        return True

    def _finish(self, shard: _Shard, number: int, out: np.ndarray) -> None:
        """Fill `out`, however long the disk takes."""
        start, count = shard.place(number)
        if self.codec != "crc32c":
            _decode(os.pread(shard.file, count, start), out, shard, number)
            return
        checksum, stored = 0, bytearray(4)
        for place in range(0, out.nbytes, _CHECK_BYTES):
            piece = out[place : place + _CHECK_BYTES]
            # `stored` ends as the four bytes behind the last piece; before, it is the begin of the next one.
            if os.preadv(shard.file, [piece, stored], start + place) < piece.nbytes + 4:
                raise shard.damage(number)
            checksum = google_crc32c.extend(checksum, piece)
        shard.compare(number, checksum, stored)


def _decode(raw: bytes | bytearray, out: np.ndarray, shard: _Shard, number: int) -> None:
    try:
        numcodecs.Zstd().decode(raw, out=out)
    except (RuntimeError, ValueError) as error:
        raise shard.damage(number, f"cannot be decoded ({error})") from error


def read_column(folder: Path, block: int, dtype: str) -> np.ndarray:
    """(block clips,) of a one-dimensional array with one zstd chunk a block: `length`, `outcome`.

    Raises:
        DamagedShard: torn file or wrong checksum.
        FileNotFoundError: no such chunk.
    """
    path = folder / "c" / str(block)
    try:
        return np.frombuffer(numcodecs.Zstd().decode(path.read_bytes()), dtype)
    except (RuntimeError, ValueError) as error:
        raise DamagedShard(f"{path}: cannot be decoded ({error})") from error
