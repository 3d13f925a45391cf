"""Read one clip straight from its shard file: open, one positioned read, checksum.

Zarr spends about a millisecond of bookkeeping on each access, more than the access itself.  This reads the same bytes
by the same format (Zarr v3 `sharding_indexed`, index at the end) for the codecs that `pipeline.layout` writes, and
`ClipReader.open` returns None for any other, so that the caller lets Zarr do it.  Shard files stay open: one system
call a read; positioned reads share no offset, so readers may be shared by threads and survive fork.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np

_ABSENT = 2**64 - 1
_OPEN_SHARDS = 128
#: Another process may replace a file; a reader notices after this many seconds and until then reads the old one, whole.
FRESH_S = 1.0


class DamagedShard(ValueError):
    """A shard file is torn or its bytes changed; the message says which."""


class _Shard:
    """An open shard file with its index.  It is closed when the last reader of it lets go."""

    def __init__(self, path: str, index_bytes: int) -> None:
        self.file = os.open(path, os.O_RDONLY)
        self.checked_s = time.monotonic()
        status = os.fstat(self.file)
        self.signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        raw = os.pread(self.file, index_bytes + 4, max(status.st_size - index_bytes - 4, 0))
        if len(raw) != index_bytes + 4 or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise DamagedShard(f"{path}: torn, its index does not match its checksum ({status.st_size} bytes)")
        self.places = np.frombuffer(raw, "<u8", index_bytes // 8).reshape(-1, 2)  # offset, number of bytes
        self.sound = np.zeros(len(self.places), bool)  # chunks that this reader has compared with their checksum

    def is_current(self, path: str) -> bool:
        """Whether the file is still the one at `path`."""
        status = os.stat(path)
        self.checked_s = time.monotonic()
        return (status.st_ino, status.st_mtime_ns, status.st_size) == self.signature

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
        self._dtype = np.dtype(dtype)
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
        block, offset = divmod(row, self._block)
        shard = self._shards.get(block)
        if shard is None or time.monotonic() - shard.checked_s > FRESH_S:
            shard = self._open(block, shard)
        needed = -(-length // self._chunk_rows)
        out = np.empty((needed, self._chunk_rows, *self._shape), self._dtype)
        for chunk in range(needed):
            self._fill(shard, block, offset * self._chunks + chunk, out[chunk])
        return out.reshape(-1, *self._shape)[:length]

    def _path(self, block: int) -> str:
        return os.path.join(self.folder, "c", str(block), *self._tail)

    def _open(self, block: int, known: _Shard | None) -> _Shard:
        path = self._path(block)
        if known is not None and known.is_current(path):
            return known
        if len(self._shards) >= _OPEN_SHARDS:
            self._shards.clear()
        shard = _Shard(path, self._index_bytes)
        self._shards[block] = shard
        return shard

    def _fill(self, shard: _Shard, block: int, number: int, out: np.ndarray) -> None:
        """Read and check one chunk into `out`, without a copy where the codec allows."""
        start, count = shard.places[number].tolist()
        if start == _ABSENT:
            raise DamagedShard(f"{self._path(block)}: a chunk that should hold rows was never written")
        if self.codec == "crc32c":
            stored = bytearray(4)
            flat = out.reshape(-1).view(np.uint8)
            sound = os.preadv(shard.file, [flat, stored], start) == flat.nbytes + 4
            if sound and not shard.sound[number]:
                sound = google_crc32c.value(flat) == int.from_bytes(stored, "little")
            if not sound:
                raise DamagedShard(f"{self._path(block)}: bytes {start} to {start + count} differ from their checksum")
            shard.sound[number] = True
            return
        try:
            numcodecs.Zstd().decode(os.pread(shard.file, count, start), out=out)
        except (RuntimeError, ValueError) as error:
            place = f"{self._path(block)}: bytes {start} to {start + count}"
            raise DamagedShard(f"{place} cannot be decoded ({error})") from error


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
