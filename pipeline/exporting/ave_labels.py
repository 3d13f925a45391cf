"""Labels and splits of AVE in HDF5, one file per array; shared by the layouts that carry them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.datasets.ave import mil_labels, segment_labels
from pipeline.exporting.request import Export
from pipeline.manifest import Manifest


def write_array(path: Path, values: np.ndarray, export: Export, key: str = "avadataset") -> None:
    """One HDF5 file with one contiguous dataset."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=values)
    export.arrays[path.name] = {"shape": list(values.shape), "dtype": values.dtype.name}


def write_labels(folder: Path, manifest: Manifest, rows: list[int], export: Export) -> None:
    """The five label files of the exported rows."""
    segments, clips = segment_labels(manifest)[rows], mil_labels(manifest)[rows]
    for name, values in (
        ("labels.h5", segments),
        ("right_labels.h5", segments),
        ("mil_labels.h5", clips),
        ("prob_label.h5", segments.mean(axis=1, dtype=np.float32)),
        ("labels_closs.h5", 1 - segments[..., -1]),
    ):
        write_array(folder / name, values, export)


def write_orders(folder: Path, manifest: Manifest, rows: list[int], export: Export) -> None:
    """The splits as row numbers, in the published order where the manifest has it; renumbered with the rows."""
    orders = manifest.facts.get("orders")
    if orders is None or not _fit(orders, manifest):
        orders = {
            split: [row for row, clip in enumerate(manifest.clips) if clip.split == split]
            for split in ("train", "val", "test")
        }
    position = {row: new for new, row in enumerate(rows)}
    for name, order in orders.items():
        split, _, match = name.partition("_")
        kept = np.array([position[row] for row in order if row in position], dtype=np.int64)
        write_array(folder / f"{split}_order{'_match' if match else ''}.h5", kept, export, "order")


def _fit(orders: dict[str, list[int]], manifest: Manifest) -> bool:
    """Whether the row numbers are of this manifest, and not of one that it is a part of."""
    clips = manifest.clips
    return all(
        row < len(clips) and clips[row].split == name
        for name, order in orders.items()
        if not name.endswith("_match")
        for row in order
    )
