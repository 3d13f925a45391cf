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

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.ave import SEGMENTS
from pipeline.exporting.ave_labels import write_array, write_labels, write_orders
from pipeline.exporting.request import Coverage, Export, Request, Role, choose, clip_array, cover
from pipeline.store import FeatureStore, StoreError

ROLES = (
    Role("visual", ("vgg19:ave2018", "resnet50:cace2024", "vgg19"), (SEGMENTS, 7, 7, 512)),
    Role("audio", ("vggish:ave2018", "cnn14:cace2024", "vggish"), (SEGMENTS, 128)),
)
FLOAT64_ONLY = "CMRAN, CMBS, CACE-Net, DIMN and DCMR"
_CHECKED_ROWS = 64


def write(request: Request) -> Export:
    """Write the folder; features row by row, so memory does not follow their size.

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
    source = _rows(request.store, keys, found, shapes)
    _features(request.folder, "", source, len(found.rows), shapes, dtype, export)
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
    export.notes += _notes(request, keys, shapes, dtype)
    return export


def _rows(
    store: FeatureStore, keys: dict[str, str], found: Coverage, shapes: dict[str, tuple[int, ...]]
) -> Callable[[str, int], np.ndarray | None]:
    def row(role: str, position: int) -> np.ndarray | None:
        manifest_row = found.rows[position]
        length = int(found.lengths[role][manifest_row])
        if length == 0:
            return None
        return clip_array(store, keys[role], int(found.place[manifest_row]), length, shapes[role])

    return row


def _features(
    folder: Path,
    suffix: str,
    source: Callable[[str, int], np.ndarray | None],
    count: int,
    shapes: dict[str, tuple[int, ...]],
    dtype: np.dtype,
    export: Export,
) -> None:
    """`visual_feature`, its mean over the grid, and `audio_feature`; rows without features are zeros."""
    import h5py

    for role, shape in shapes.items():
        path = folder / f"{role}_feature{suffix}.h5"
        mean_path = folder / "visual_feature_vec.h5" if len(shape) == 4 and not suffix else None
        with h5py.File(path, "w") as file:
            data = file.create_dataset("avadataset", (count, *shape), dtype)
            means = np.zeros((count, shape[0], shape[-1]), dtype) if mean_path else None
            for position in range(count):
                if (values := source(role, position)) is not None:
                    values = values.astype(dtype)
                    data[position] = values
                    if means is not None:
                        means[position] = values.mean(axis=(1, 2))
                else:
                    data[position] = np.zeros(shape, dtype)
        export.arrays[path.name] = {"shape": [count, *shape], "dtype": dtype.name}
        if mean_path:
            write_array(mean_path, means, export)
        _read_back(path, role, source, count, dtype)


def _read_back(path: Path, role: str, source: Callable, count: int, dtype: np.dtype) -> None:
    """Compare evenly spread rows of the finished file with the store.

    Raises:
        StoreError: a row differs.
    """
    import h5py

    with h5py.File(path, "r") as file:
        data = file["avadataset"]
        for position in np.unique(np.linspace(0, count - 1, min(count, _CHECKED_ROWS)).astype(int)):
            values = source(role, int(position))
            expected = np.zeros(data.shape[1:], dtype) if values is None else values.astype(dtype)
            if not np.array_equal(data[position], expected):
                raise StoreError(f"{path.name}: row {position} does not read back as it was written")


def _background(request: Request, dtype: np.dtype, shapes: dict[str, tuple[int, ...]], export: Export) -> None:
    """The three `noisy` files: clips without any event of the vocabulary, in the order of their manifest."""
    manifest, store = request.background
    part = Request(manifest, store, request.folder, missing="renumber")
    names = {role: request.store.spec(key).key for role, key in export.features.items()}
    keys = {role: store.key(name) for role, name in names.items()}
    found = cover(part, keys)
    source = _rows(store, keys, found, shapes)
    _features(request.folder, "_noisy", source, len(found.rows), shapes, dtype, export)
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
