"""`ave-h5`: the `data/` folder of AVE-ECCV18, CMRAN, CMBS, DMIN, CACE-Net and PSP, one HDF5 file per array.

    visual_feature.h5       (N, 10, 7, 7, 512)  clip, second, row, column, channel
    visual_feature_vec.h5   (N, 10, 512)        its mean over the 7x7 grid
    audio_feature.h5        (N, 10, 128)
    labels.h5 right_labels.h5 (N, 10, C + 1)    mil_labels.h5 prob_label.h5 (N, C + 1)   labels_closs.h5 (N, 10)
    train_order.h5 ...      row numbers, key `order`; all other files have the key `avadataset`
    *_noisy.h5              the background clips of the weak setting

Row i is line i of `Annotations.txt`.  Datasets are contiguous and without attributes, as the published files are.
Source: the loaders of those repositories; the label rules were checked against the published files cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.cluster import groups, spread
from pipeline.datasets.ave import SEGMENTS
from pipeline.exporting.ave_labels import write_array, write_labels, write_orders
from pipeline.exporting.request import Coverage, Export, Request, Role, choose, clip_array, cover
from pipeline.store import FeatureStore, StoreError

ROLES = (
    Role("visual", ("vgg19:ave2018", "resnet50:cace2024", "vgg19"), (SEGMENTS, 7, 7, 512)),
    Role("audio", ("vggish:ave2018", "cnn14:cace2024", "vggish"), (SEGMENTS, 128)),
)
FLOAT64_ONLY = "CMRAN, CMBS, CACE-Net, DIMN and DCMR"
EVALUATED_ROWS, TEST_BATCH = 402, 16
_CHECKED_ROWS = 64


@dataclass(frozen=True)
class _Clips:
    """The clips of one role in the order of the export.

    Args:
        store, key: where they are.
        shape: of one clip in the layout.
        places: (row of the store, stored rows); clips without rows are zeros.
    """

    store: Path
    key: str
    shape: tuple[int, ...]
    places: list[tuple[int, int]]

    def part(self, positions: range) -> _Clips:
        return replace(self, places=self.places[positions.start : positions.stop])


def read(clips: _Clips, dtype: str, averaged: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """On a Dask worker: (n, *shape) in the type of the store and, if asked for, their mean over the grid in `dtype`."""
    store = FeatureStore.open(clips.store)
    values = np.zeros((len(clips.places), *clips.shape), store.spec(clips.key).dtype)
    for target, (row, length) in zip(values, clips.places, strict=True):
        if length:
            target[...] = clip_array(store, clips.key, row, length, clips.shape)
    return values, values.astype(dtype).mean(axis=(2, 3)) if averaged else None


def write(request: Request) -> Export:
    """Write the folder.  Dask workers read and average, this process writes: memory does not follow the dataset.

    Raises:
        StoreError: the features are no ten rows per clip, or missing altogether.
    """
    keys = choose(request, ROLES)
    for key in keys.values():
        if request.store.plan(key).segments != SEGMENTS:
            raise StoreError(f"{key}: up to {request.store.plan(key).segments} rows a clip; this layout has {SEGMENTS}")
    found = cover(request, keys)
    dtype = np.dtype(request.dtype or "float64")
    export = Export(keys, missing=found.missing)
    shapes = {role: (SEGMENTS, *request.store.spec(key).shape) for role, key in keys.items()}
    clips = {role: _clips(request.store, key, found, role, shapes[role]) for role, key in keys.items()}
    _features(request, "", clips, dtype, export)
    write_labels(request.folder, request.manifest, found.rows, export)
    write_orders(request.folder, request.manifest, found.rows, export)
    if request.background:
        _background(request, dtype, shapes, export)
    else:
        export.notes.append(
            "no background clips: weak mode needs labels_noisy.h5 and the two noisy feature files; "
            "pass --background-manifest and --background-store"
        )
    if found.missing and request.missing == "renumber":
        export.dropped = [
            request.manifest.ids[row] for row in sorted(set(range(len(request.manifest))) - {*found.rows})
        ]
    export.notes += [*_order_notes(export), *_notes(request, keys, shapes, dtype)]
    return export


def _clips(store: FeatureStore, key: str, found: Coverage, role: str, shape: tuple[int, ...]) -> _Clips:
    rows = np.array(found.rows)
    places = np.stack([found.place[rows], found.lengths[role][rows]], axis=1)
    return _Clips(store.path, key, shape, [tuple(place) for place in places.tolist()])


def _features(request: Request, suffix: str, clips: dict[str, _Clips], dtype: np.dtype, export: Export) -> None:
    """One file per role; with `visual_feature.h5`, if it has a grid, goes its mean, `visual_feature_vec.h5`."""
    averaged = {role: not suffix and len(part.shape) == 4 for role, part in clips.items()}
    jobs = (
        (part.part(positions), dtype.name, averaged[role])
        for role, part in clips.items()
        for positions in _groups(part, dtype)
    )
    with closing(spread(read, jobs, request.workers, request.scheduler)) as results:
        for role, part in clips.items():
            path = request.folder / f"{role}_feature{suffix}.h5"
            _feature(path, part, dtype, results, averaged[role], export)
            _read_back(path, part, dtype)


def _groups(clips: _Clips, dtype: np.dtype) -> Iterator[range]:
    return groups(len(clips.places), math.prod(clips.shape) * dtype.itemsize)


def _feature(path: Path, clips: _Clips, dtype: np.dtype, results: Iterator, averaged: bool, export: Export) -> None:
    import h5py

    count, shape = len(clips.places), clips.shape
    means = np.zeros((count if averaged else 0, shape[0], shape[-1]), dtype)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("avadataset", (count, *shape), dtype)
        for positions in _groups(clips, dtype):
            values, mean = next(results)
            data[positions.start : positions.stop] = values.astype(dtype, copy=False)
            if averaged:
                means[positions.start : positions.stop] = mean
    export.arrays[path.name] = {"shape": [count, *shape], "dtype": dtype.name}
    if averaged:
        write_array(path.with_name("visual_feature_vec.h5"), means, export)


def _read_back(path: Path, clips: _Clips, dtype: np.dtype) -> None:
    """Compare evenly spread rows of the finished file with the store.

    Raises:
        StoreError: a row differs.
    """
    import h5py

    count = len(clips.places)
    with h5py.File(path, "r") as file:
        for position in np.unique(np.linspace(0, count - 1, min(count, _CHECKED_ROWS)).astype(int)).tolist():
            (expected,), _ = read(clips.part(range(position, position + 1)), dtype.name, averaged=False)
            if not np.array_equal(file["avadataset"][position], expected.astype(dtype)):
                raise StoreError(f"{path.name}: row {position} does not read back as it was written")


def _background(request: Request, dtype: np.dtype, shapes: dict[str, tuple[int, ...]], export: Export) -> None:
    """The three `noisy` files: clips without any event of the vocabulary, in the order of their manifest."""
    manifest, store = request.background
    part = Request(manifest, store, request.folder, missing="renumber")
    names = {role: request.store.spec(key).key for role, key in export.features.items()}
    keys = {role: store.key(name) for role, name in names.items()}
    found = cover(part, keys)
    clips = {role: _clips(store, key, found, role, shapes[role]) for role, key in keys.items()}
    _features(request, "_noisy", clips, dtype, export)
    labels = np.zeros((len(found.rows), len(request.manifest.classes) + 1), np.float32)
    labels[:, -1] = 1
    write_array(request.folder / "labels_noisy.h5", labels, export)
    export.missing += [entry | {"background": True} for entry in found.missing]
    if len(request.manifest) > 8000:
        export.notes.append("PSP's weak mode numbers background clips from 8000, so it needs fewer than 8000 rows")


def _notes(request: Request, keys: dict[str, str], shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> list[str]:
    notes = []
    if dtype != np.float64:
        notes.append(
            f"{dtype.name} features: {FLOAT64_ONLY} feed them uncast to a double network and fail; use float64"
        )
    for role in ROLES:
        if role.name not in keys:
            notes.append(f"no {role.name} feature in the store, so {role.name}_feature.h5 is not written")
        elif shapes[role.name] != role.shape:
            notes.append(f"{role.name} rows are {shapes[role.name]}, unmodified peers expect {role.shape}")
    if len(request.manifest.classes) != 28:
        notes.append(f"{len(request.manifest.classes)} classes; unmodified peers have 28 and background")
    notes.append("DMIN opens /data/sliu/work/data/ by absolute path: put or mount the folder there")
    return notes


def _order_notes(export: Export) -> list[str]:
    """What the peers of this layout demand of the order files; others that carry the files do not share it."""
    notes = []
    if not any(name.endswith("_order_match.h5") for name in export.arrays):
        notes.append("the manifest has no *_order_match split, so the cross-modality files are not written")
    lengths = {name: export.arrays.get(f"{name}_order.h5", {"shape": [0]})["shape"][0] for name in ("val", "test")}
    for name, length in lengths.items():
        if length < EVALUATED_ROWS:
            notes.append(f"AVE-ECCV18 and PSP need at least {EVALUATED_ROWS} rows in {name}_order.h5, it has {length}")
    if lengths["test"] % TEST_BATCH == 1:
        notes.append(
            f"CMRAN, CMBS, DIMN and CACE-Net break on a last test batch of one sample: {lengths['test']} mod "
            f"{TEST_BATCH} is 1"
        )
    return notes
