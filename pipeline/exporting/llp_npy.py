"""`llp-npy`: one `.npy` per clip and feature folder, as HAN, JoMoLD, VALOR, MM-CSE and LSLD read them.

    data/feats/vggish/<id>.npy (10, 128)              data/feats/res152/<id>.npy (80, 2048)
    data/feats/r2plus1d_18/<id>.npy (10, 512)         data/r2plus1d_18/ (MM-CSE's place for the same)
    data/CLIP/features/<id>.npy (10, 768)             data/CLAP/features/<id>.npy (64, 768)
    data/{CLIP,CLAP}/segment_pseudo_labels/<id>.npy   (10, 25) int64; also under MM-CSE's two folders
    data/feats/clip_16 (80, 512), data/feats/clap_audioset (10, 512), refine_label/*.npz     LSLD
    data/AVVP_*.csv                                   the six lists

The id is the 11-character video id.  Arrays are float32: the loaders do not cast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import spread
from pipeline.datasets.llp import SEGMENTS
from pipeline.exporting import lsld
from pipeline.exporting.llp_lists import file_id, write_lists
from pipeline.exporting.request import Coverage, Export, Request, Role, choose, clip_array, cover
from pipeline.folder import link, save_npy
from pipeline.labels import MODALITIES, LabelStore
from pipeline.manifest import Clip, Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore, StoreError

ROLES = (
    Role("vggish", ("vggish:llp2020",), (10, 128)),
    Role("res152", ("resnet152:llp2020",), (80, 2048)),
    Role("r2plus1d_18", ("r2plus1d:llp2020",), (10, 512)),
    Role("clip", ("clip-l14:valor2023",), (10, 768)),
    Role("clap", ("clap-map:valor2023",), (64, 768)),
    Role("clip_16", ("clip-b16:lsld2023",), (80, 512)),
    Role("clap_audioset", ("clap:lsld2023",), (10, 512)),
)
FOLDERS = {
    "vggish": ("data/feats/vggish",),
    "res152": ("data/feats/res152",),
    "r2plus1d_18": ("data/feats/r2plus1d_18", "data/r2plus1d_18"),
    "clip": ("data/CLIP/features",),
    "clap": ("data/CLAP/features",),
    "clip_16": ("data/feats/clip_16",),
    "clap_audioset": ("data/feats/clap_audioset",),
}
PSEUDO_LABELS = {
    "visual": ("data/CLIP/segment_pseudo_labels", "data/feats_CLIP_large/framewise_pseudo_labels"),
    "audio": ("data/CLAP/segment_pseudo_labels", "data/feats_CLAP_new/framewise_pseudo_labels"),
}
_CLIPS_AT_ONCE = 256


def write(request: Request) -> Export:
    """Write the folders, clip by clip, on Dask workers if asked for.

    Raises:
        StoreError: features of other shapes, two clips that would share a file.
    """
    keys = choose(request, ROLES)
    manifest, dtype = request.manifest, request.dtype or "float32"
    _check_names(manifest)
    shapes = {role.name: role.shape for role in ROLES if role.name in keys}
    found = cover(request, keys)
    labels = LabelStore.open(request.labels) if request.labels else None
    rows = _drop_unlabelled(request, labels, found.rows) if labels else found.rows
    found = dataclasses.replace(found, rows=rows)
    export = Export(keys, missing=found.missing)
    export.dropped = [manifest.ids[row] for row in sorted(set(range(len(manifest))) - set(rows))]
    for role in keys:
        export.arrays[FOLDERS[role][0]] = {"shape": list(shapes[role]), "dtype": dtype, "files": len(rows)}
    for _ in spread(_write_clips, _jobs(request, keys, shapes, found, dtype), request.workers, request.scheduler):
        pass
    write_lists(request, request.folder / "data", rows, export)
    if labels:
        _pseudo_labels(request, labels, rows, export)
    export.notes += _notes(keys, dtype, request)
    return export


def _check_names(manifest: Manifest) -> None:
    taken: dict[str, str] = {}
    for clip in manifest.clips:
        name = file_id(clip)
        if name in taken:
            raise StoreError(
                f"clips {taken[name]} and {clip.id} would share {name}.npy: this layout names files by the first "
                "eleven characters of the clip id, so it fits LLP and datasets with such ids"
            )
        taken[name] = clip.id


def _jobs(
    request: Request, keys: dict[str, str], shapes: dict[str, tuple[int, ...]], found: Coverage, dtype: str
) -> Iterator[tuple[Any, ...]]:
    """(folders, store, key, shape, dtype, [(file, store row, length)]) of a few hundred clips each."""
    for role, key in keys.items():
        folders = [request.folder / name for name in FOLDERS[role]]
        for start in range(0, len(found.rows), _CLIPS_AT_ONCE):
            rows = found.rows[start : start + _CLIPS_AT_ONCE]
            clips = [
                (file_id(request.manifest.clips[row]), int(found.place[row]), int(found.lengths[role][row]))
                for row in rows
            ]
            yield folders, request.store.path, key, shapes[role], dtype, clips


def _write_clips(
    folders: list[Path],
    path: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: str,
    clips: list[tuple[str, int, int]],
) -> None:
    store = FeatureStore.open(path)
    for name, row, length in clips:
        values = np.zeros(shape, dtype)
        if length:
            values = clip_array(store, key, row, length, shape).astype(dtype)
        first = folders[0] / f"{name}.npy"
        save_npy(first, values)
        if not np.array_equal(np.load(first), values):
            raise StoreError(f"{first}: does not read back as it was written")
        for folder in folders[1:]:
            link(first, folder / f"{name}.npy")


def _drop_unlabelled(request: Request, labels: LabelStore, rows: list[int]) -> list[int]:
    """With `renumber`, training clips without any labels leave; the others stay, since evaluation has true labels."""
    if request.missing != "renumber":
        return rows
    clips = request.manifest.clips
    return [row for row in rows if clips[row].split != "train" or any(labels.has(clips[row].id, m) for m in MODALITIES)]


def _pseudo_labels(request: Request, labels: LabelStore, rows: list[int], export: Export) -> None:
    """0/1 labels of every split, since VALOR opens them in every mode; and LSLD's archives of the train clips.

    Raises:
        StoreError: labels of another number of segments.
    """
    for key in labels.keys.values():
        if (count := labels.store.plan(key).segments) != SEGMENTS:
            raise StoreError(f"{labels.path}: {key} has {count} rows a clip, this layout has {SEGMENTS}")
    clips = [request.manifest.clips[row] for row in rows]
    for row, clip in zip(rows, clips, strict=True):
        for modality in MODALITIES:
            if not labels.has(clip.id, modality):
                outcomes = labels.outcomes(modality) if modality in labels.keys else {}
                outcome = outcomes.get(clip.id, "pending")
                export.missing.append(_without_labels(row, clip, modality, outcome))
    shape = [SEGMENTS, len(labels.classes)]
    for modality, names in PSEUDO_LABELS.items():
        folders = [request.folder / name for name in names]
        jobs = (
            (modality, folders, labels, [(clip.id, file_id(clip)) for clip in clips[start : start + _CLIPS_AT_ONCE]])
            for start in range(0, len(clips), _CLIPS_AT_ONCE)
        )
        for _ in spread(_write_labels, jobs, request.workers, request.scheduler):
            pass
        for name in names:
            export.arrays[name] = {"shape": shape, "dtype": "int64", "files": len(clips)}
    training = {clip.id: file_id(clip) for clip in clips if clip.split == "train"}
    export.notes += lsld.write_archives(request.folder / "refine_label", labels, training)


def _write_labels(modality: str, folders: list[Path], labels: LabelStore, clips: list[tuple[str, str]]) -> None:
    for clip_id, name in clips:
        values = np.zeros((SEGMENTS, len(labels.classes)), np.int64)
        if labels.has(clip_id, modality):
            values[:] = labels.read(clip_id, modality)
        save_npy(folders[0] / f"{name}.npy", values)
        for folder in folders[1:]:
            link(folders[0] / f"{name}.npy", folder / f"{name}.npy")


def _without_labels(row: int, clip: Clip, modality: str, outcome: str) -> dict[str, Any]:
    entry = {"row": row, "id": clip.id, "source_id": clip.source_id, "split": clip.split}
    return entry | {"feature": f"{modality} labels", "outcome": outcome, "reason": MEANING[outcome]}


def _notes(keys: dict[str, str], dtype: str, request: Request) -> list[str]:
    notes = []
    if dtype != "float32":
        notes.append(f"{dtype} features: HAN, VALOR and the others do not cast and fail; use float32")
    if lacking := [role.name for role in ROLES if role.name not in keys]:
        notes.append(f"not in the store, so not written: {', '.join(lacking)}")
    for role in ROLES:
        name = request.store.spec(keys[role.name]).name if role.name in keys else role.recipes[0]
        if name not in role.recipes and not name.endswith(":published"):
            notes.append(f"{role.name} is {name}, while the published files come from {' or '.join(role.recipes)}")
    if not request.labels:
        notes.append("no --labels: VALOR, MM-CSE and LSLD also need pseudo-labels")
    notes.append("the loaders index table rows by position, which needs pandas below 3")
    return notes
