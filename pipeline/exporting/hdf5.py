"""`hdf5`: the store as HDF5, one file per block and one master file of virtual datasets over them.

    <dataset>.h5                  group per key with `values`, `segments`, `length`, `outcome` (virtual) and `clip`
    blocks/<key>/<block>.h5       the same names for the clips of one block

Names and attributes are those of the Zarr store.  Paths inside the master file are relative, so the folder can be moved
as a whole.  Blocks that are not done read as outcome `pending`.  HDF5 itself reads a missing block file as fill values
without an error; `check` finds such gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import spread
from pipeline.exporting.request import Export, Request
from pipeline.layout import ARRAYS
from pipeline.run import Progress
from pipeline.store import FeatureStore, StoreError


def write(request: Request) -> Export:
    """Write the block files, on Dask workers if asked for, then the master file.

    Raises:
        StoreError: the store holds no feature, or the files do not read back.
    """
    store = request.store
    if store is None or not store.keys():
        raise StoreError("--store with at least one feature is needed for this format")
    _refuse(request, store)
    export = Export({key: key for key in store})
    jobs = [(store.path, request.folder, key, block) for key in store for block in _done(store, key)]
    progress = Progress(len(jobs), "blocks")
    for _ in spread(_write_block, jobs, request.workers, request.scheduler):
        progress.add()
    progress.close()
    _write_master(store, request.folder / f"{store.facts['dataset']}.h5", export)
    if problems := check(request.folder / f"{store.facts['dataset']}.h5", store):
        raise StoreError("\n  ".join(["does not read back as it was written:", *problems]))
    for key in store:
        gaps = store.outcomes(key)
        reasons = store.reasons(key)
        for row, (clip_id, outcome) in enumerate(gaps.items()):
            if outcome != "ok":
                entry = {"row": row, "id": clip_id, "feature": key, "key": key, "outcome": outcome}
                export.missing.append(entry | {"reason": reasons.get(clip_id, "")})
    if request.missing == "renumber":
        export.notes.append("rows are never renumbered in this format: `length` is 0 where there are no rows")
    return export


def _refuse(request: Request, store: FeatureStore) -> None:
    """Say what this format has no choice in, instead of passing over it."""
    problems = []
    if request.chosen:
        problems.append("--feature: every feature of the store is written, under its key")
    if request.dtype:
        problems.append(f"--dtype {request.dtype}: every array keeps the dtype that it has in the store")
    if request.manifest.ids != store.ids:
        problems.append(
            f"--manifest: the whole store is written, whose {len(store.ids)} clips are not the {len(request.manifest)} "
            "of this manifest; give its own, or extract those clips into a store of theirs"
        )
    if problems:
        raise StoreError("\n  ".join(["--format hdf5 cannot do what was asked:", *problems]))


def _done(store: FeatureStore, key: str) -> Iterator[int]:
    for block, _ in store.blocks(key):
        if store.commit(key, block) is not None:
            yield block


def _block_name(key: str, block: int) -> str:
    return f"blocks/{key}/{block:06d}.h5"


def _write_block(path: Path, folder: Path, key: str, block: int) -> int:
    import h5py

    store = FeatureStore.open(path)
    span = store.block_span(key, block)
    target = folder / _block_name(key, block)
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(target, "w") as file:
        for name in ARRAYS:
            array = store.array(key, name)
            data = file.create_dataset(name, data=array[span.start : span.stop], chunks=None)
            _label(data, array)
        file.create_dataset("clip", data=np.array(store.ids[span.start : span.stop], dtype=h5py.string_dtype()))
        file.attrs["clave"] = json.dumps({"spec": store.spec(key).to_dict(), "clips": [span.start, span.stop]})
    return block


def _label(data: Any, array: Any) -> None:
    """Dimension names and the attributes of the Zarr array."""
    for axis, name in enumerate(array.metadata.dimension_names or ()):
        data.dims[axis].label = name
    for name, value in sorted(dict(array.attrs).items()):
        data.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value)


def _write_master(store: FeatureStore, path: Path, export: Export) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["clave"] = json.dumps(store.facts, sort_keys=True)
        for key in store:
            group = file.create_group(key)
            group.attrs["clave"] = json.dumps(store.spec(key).to_dict(), sort_keys=True)
            group.create_dataset("clip", data=np.array(store.ids, dtype=h5py.string_dtype()))
            for name in ARRAYS:
                array = store.array(key, name)
                layout = h5py.VirtualLayout(array.shape, array.dtype)
                layout.dcpl.set_obj_track_times(False)  # else the file holds the time at which it was made
                for block in _done(store, key):
                    span = store.block_span(key, block)
                    shape = (len(span), *array.shape[1:])
                    layout[span.start : span.stop] = h5py.VirtualSource(
                        _block_name(key, block), name, shape, array.dtype
                    )
                data = group.create_virtual_dataset(name, layout, fillvalue=array.fill_value)
                _label(data, array)
                export.arrays[f"{key}/{name}"] = {"shape": list(array.shape), "dtype": array.dtype.name}


def check(master: Path, store: FeatureStore) -> list[str]:
    """Block files that the master file needs and that are gone, and first rows that differ from the store."""
    import h5py

    found = []
    with h5py.File(master) as file:
        for key in store:
            for block in _done(store, key):
                name = _block_name(key, block)
                span = store.block_span(key, block)
                if not (master.parent / name).is_file():
                    found.append(f"{name} is missing: HDF5 shows fill values in its place")
                    continue
                length = int(store.array(key, "length")[span.start])
                stored = store.rows_at(key, span.start, length) if length else None
                if stored is not None and not np.array_equal(file[key]["values"][span.start][:length], stored):
                    found.append(f"{key}: clip {store.ids[span.start]} differs from the store")
    return found
