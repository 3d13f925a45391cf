"""`webdataset`: tar files of samples for streaming loaders, one sample per clip.

    <split>-000000.tar: 0000012.<encoder>.npy ... 0000012.json

The sample's name is its row in the manifest: clip ids may hold dots, which the format reads as the start of the
extension.  Times, owner and order inside the files are fixed, so the same inputs give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import groups, spread
from pipeline.exporting.request import Coverage, Export, Request, cover
from pipeline.manifest import Clip
from pipeline.store import FeatureStore, StoreError

_TAR_BYTES = 256 << 20


def write(request: Request) -> Export:
    """Write the tars, from samples that Dask workers make, if there are any; this process alone writes.

    Clips without a feature lack that file, or are left out with `renumber`.

    Raises:
        StoreError: the store holds no feature.
    """
    store = request.store
    if store is None or not store.keys():
        raise StoreError("--store with at least one feature is needed for this format")
    keys = {role: store.key(name) for role, name in request.chosen.items()} or _members(store)
    found = cover(request, keys)
    export = Export(keys, missing=found.missing, kept="whose samples lack those files")
    export.dropped = [request.manifest.ids[row] for row in sorted(set(range(len(request.manifest))) - set(found.rows))]
    rows = {
        split: [row for row in found.rows if request.manifest.clips[row].split == split]
        for split in request.manifest.splits()
    }
    jobs = (job for members in rows.values() for job in _jobs(request, keys, found, members))
    with closing(spread(read, jobs, request.workers, request.scheduler)) as results:
        for split, members in rows.items():
            tars, done = _Tars(request.folder, split or "all"), 0
            while done < len(members):
                samples = next(results)
                done += len(samples)
                for sample in samples:
                    tars.add(sample)
            tars.close()
            export.arrays[f"{split or 'all'}-*.tar"] = {"files": tars.count, "samples": len(members)}
    return export


def _jobs(request: Request, keys: dict[str, str], found: Coverage, rows: list[int]) -> Iterator[tuple[Any, ...]]:
    store = request.store
    clip_bytes = sum(store.clip_bytes(key) for key in keys.values())
    for part in groups(len(rows), clip_bytes):
        clips = [
            (
                row,
                request.manifest.clips[row],
                int(found.place[row]),
                {role: int(lengths[row]) for role, lengths in found.lengths.items()},
            )
            for row in rows[part.start : part.stop]
        ]
        yield store.path, keys, request.dtype, clips


def read(
    path: Path, keys: dict[str, str], dtype: str | None, clips: list[tuple[int, Clip, int, dict[str, int]]]
) -> list[dict[str, Any]]:
    """On a Dask worker: the samples of some clips, each (manifest row, clip, store row, role -> stored rows)."""
    store, samples = FeatureStore.open(path), []
    for row, clip, place, lengths in clips:
        sample: dict[str, Any] = {"__key__": f"{row:07d}", "json": _facts(row, clip)}
        for role, key in keys.items():
            if lengths[role]:
                sample[f"{role}.npy"] = _npy(store.rows_at(key, place, lengths[role]), dtype)
        samples.append(sample)
    return samples


class _Tars:
    """Consecutive tar files of at most 256 MB."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split, self.count = folder, split, 0
        self._writer, self._bytes = None, 0

    def add(self, sample: dict[str, Any]) -> None:
        from webdataset import TarWriter

        size = sum(len(value) for value in sample.values() if isinstance(value, bytes))
        if self._writer is None or self._bytes + size > _TAR_BYTES:
            self.close()
            path = self.folder / f"{self.split}-{self.count:06d}.tar"
            self._writer = TarWriter(str(path), encoder=False, mtime=0, user="clave", group="clave")
            self._bytes = 0
            self.count += 1
        self._bytes += size
        self._writer.write(sample)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _members(store: FeatureStore) -> dict[str, str]:
    """Every key of the store by the part of a file name that says which it is: `vgg19_ave2018`.

    Where several have one name (other weights, another precision), each carries the hash of its key.
    """
    names = {key: store.spec(key).name.replace(":", "_").replace(".", "_") for key in store}
    shared = Counter(names.values())
    return {name if shared[name] == 1 else f"{name}_{key.rpartition('.')[2]}": key for key, name in names.items()}


def _facts(row: int, clip: Clip) -> bytes:
    return json.dumps({"row": row} | clip.to_dict(), sort_keys=True).encode()


def _npy(values: np.ndarray, dtype: str | None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values if dtype is None else values.astype(dtype), allow_pickle=False)
    return buffer.getvalue()
