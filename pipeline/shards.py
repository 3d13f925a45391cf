"""Read one clip straight from its shard file: open, one positioned read, checksum.

Zarr spends about a millisecond of bookkeeping on each access, more than the access itself.  This reads the same bytes
by the same format (Zarr v3 `sharding_indexed`, index at the end) for the codecs that `pipeline.layout` writes, and
`ClipReader.open` returns None for any other, so that the caller lets Zarr do it.  Nothing stays open between two reads,
so readers may be shared by threads and survive fork.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np

_ABSENT = 2**64 - 1
_CACHED_SHARDS = 4096


class DamagedShard(ValueError):
    """A shard file is torn or its bytes changed; the message says which."""


@dataclass(frozen=True)
class _Index:
    signature: tuple[int, int, int]
    places: np.ndarray  # (chunks, 2) uint64: offset and number of bytes
    checked: np.ndarray  # (chunks,) bool: this reader has compared the chunk with its checksum


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
        self._indexes: dict[int, _Index] = {}

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
        path = os.path.join(self.folder, "c", str(block), *self._tail)
        needed = -(-length // self._chunk_rows)
        out = np.empty((needed, self._chunk_rows, *self._shape), self._dtype)
        file = os.open(path, os.O_RDONLY)
        try:
            index = self._index(file, block, path)
            for chunk in range(needed):
                number = offset * self._chunks + chunk
                start, count = index.places[number].tolist()
                self._fill(file, start, count, out[chunk], path, not index.checked[number])
                index.checked[number] = True
        finally:
            os.close(file)
        return out.reshape(-1, *self._shape)[:length]

    def _index(self, file: int, block: int, path: str) -> _Index:
        status = os.fstat(file)
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._indexes.get(block)
        if known is not None and known.signature == signature:
            return known
        raw = os.pread(file, self._index_bytes + 4, max(status.st_size - self._index_bytes - 4, 0))
        if len(raw) != self._index_bytes + 4 or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise DamagedShard(f"{path}: torn, its index does not match its checksum ({status.st_size} bytes)")
        places = np.frombuffer(raw, "<u8", self._index_bytes // 8).reshape(-1, 2)
        if len(self._indexes) >= _CACHED_SHARDS:
            self._indexes.clear()
        self._indexes[block] = _Index(signature, places, np.zeros(len(places), bool))
        return self._indexes[block]

    def _fill(self, file: int, start: int, count: int, out: np.ndarray, path: str, check: bool) -> None:
        """Read and check one chunk into `out`, without a copy where the codec allows."""
        if start == _ABSENT:
            raise DamagedShard(f"{path}: a chunk that should hold rows was never written")
        if self.codec == "crc32c":
            stored = bytearray(4)
            flat = out.reshape(-1).view(np.uint8)
            got = os.preadv(file, [flat, stored], start)
            sound = got == flat.nbytes + 4
            if not sound or (check and google_crc32c.value(flat) != int.from_bytes(stored, "little")):
                raise DamagedShard(f"{path}: bytes {start} to {start + count} differ from their checksum")
            return
        try:
            numcodecs.Zstd().decode(os.pread(file, count, start), out=out)
        except (RuntimeError, ValueError) as error:
            raise DamagedShard(f"{path}: bytes {start} to {start + count} cannot be decoded ({error})") from error


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
