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

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import spread
from pipeline.exporting.request import Coverage, Export, Request, Role, choose, clip_array, cover
from pipeline.folder import link, save_npy
from pipeline.manifest import Clip, Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore, StoreError

SEGMENTS = 10
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
CLIP_LISTS = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
EVENT_LISTS = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
FULL_LIST = "AVVP_dataset_full.csv"
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
    export = Export(keys, missing=found.missing)
    export.dropped = [manifest.ids[row] for row in sorted(set(range(len(manifest))) - set(found.rows))]
    jobs = _jobs(request, keys, shapes, found, dtype)
    for role, count in spread(_write_clips, jobs, request.workers, request.scheduler):
        first = export.arrays.setdefault(FOLDERS[role][0], {"shape": list(shapes[role]), "dtype": dtype, "files": 0})
        first["files"] += count
    write_lists(request, request.folder / "data", found.rows, export)
    if request.labels:
        _pseudo_labels(request, found, export)
    export.notes += _notes(keys, dtype, request)
    return export


def file_id(clip: Clip) -> str:
    """The first eleven characters of the file name in the lists, which is how every loader names its files."""
    return clip.id[:11]


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
    """(role, folders, store, key, shape, dtype, [(file, store row, length)]) of a few hundred clips each."""
    for role, key in keys.items():
        folders = [request.folder / name for name in FOLDERS[role]]
        for start in range(0, len(found.rows), _CLIPS_AT_ONCE):
            rows = found.rows[start : start + _CLIPS_AT_ONCE]
            clips = [
                (file_id(request.manifest.clips[row]), int(found.place[row]), int(found.lengths[role][row]))
                for row in rows
            ]
            yield role, folders, request.store.path, key, shapes[role], dtype, clips


def _write_clips(
    role: str,
    folders: list[Path],
    path: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: str,
    clips: list[tuple[str, int, int]],
) -> tuple[str, int]:
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
    return role, len(clips)


def write_lists(request: Request, data: Path, rows: list[int], export: Export) -> None:
    """The six csv files: the published ones if given and nothing was dropped, else from the manifest."""
    data.mkdir(parents=True, exist_ok=True)
    if request.annotations:
        names = [*CLIP_LISTS.values(), *EVENT_LISTS.values(), FULL_LIST]
        if lacking := [name for name in names if not (request.annotations / name).is_file()]:
            raise FileNotFoundError(f"--annotations {request.annotations} lacks {', '.join(lacking)}")
        dropped = set(export.dropped)
        for name in names:
            if dropped and name not in EVENT_LISTS.values():
                lines = (request.annotations / name).read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if line.split(b"\t")[0].decode() not in dropped]
                (data / name).write_bytes(b"".join(kept))
            else:
                shutil.copyfile(request.annotations / name, data / name)
        return
    clips = [request.manifest.clips[row] for row in rows]
    ordered = [clip for split in CLIP_LISTS for clip in clips if clip.split == split]
    for name, members in [
        (FULL_LIST, ordered),
        *((CLIP_LISTS[s], [c for c in clips if c.split == s]) for s in CLIP_LISTS),
    ]:
        table = [(clip.id, ",".join(clip.labels)) for clip in members]
        (data / name).write_bytes(_table(("filename", "event_labels"), table))
    for modality, name in EVENT_LISTS.items():
        table = [
            (clip.id, int(event.start_s), int(event.end_s), event.label)
            for clip in ordered
            for event in clip.events
            if clip.split != "train" and event.modality in (modality, "both")
        ]
        (data / name).write_bytes(_table(("filename", "onset", "offset", "event_labels"), table))
    export.notes.append("the csv files were written from the manifest; --annotations DIR copies the published ones")


def _table(header: tuple[str, ...], rows: list[tuple]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerows([header, *rows])
    return text.getvalue().encode()


def _pseudo_labels(request: Request, found: Coverage, export: Export) -> None:
    """0/1 labels of every split, since VALOR opens them in every mode; and LSLD's archive of the train clips."""
    from pipeline.labels import LabelStore

    labels = LabelStore.open(request.labels)
    archive: dict[str, dict[str, np.ndarray]] = {"audio": {}, "visual": {}}
    for row in found.rows:
        clip = request.manifest.clips[row]
        for modality, folders in PSEUDO_LABELS.items():
            values = np.zeros((SEGMENTS, len(labels.classes)), np.uint8)
            if labels.has(clip.id, modality):
                values = labels.read(clip.id, modality)
            else:
                export.missing.append(_without_labels(row, clip, modality, labels.outcome(clip.id, modality)))
            save_npy(request.folder / folders[0] / f"{file_id(clip)}.npy", values.astype(np.int64))
            for folder in folders[1:]:
                link(
                    request.folder / folders[0] / f"{file_id(clip)}.npy",
                    request.folder / folder / f"{file_id(clip)}.npy",
                )
            if clip.split == "train":
                archive[modality][file_id(clip)] = values
    for folders in PSEUDO_LABELS.values():
        for folder in folders:
            export.arrays[folder] = {
                "shape": [SEGMENTS, len(labels.classes)],
                "dtype": "int64",
                "files": len(found.rows),
            }
    for name in ("final_label.npz", "denoised_label.npz"):
        write_tensor_archive(request.folder / "refine_label" / name, archive["audio"], archive["visual"])
    export.notes.append(
        "refine_label/*.npz hold Python objects because LSLD's loader expects them: reading needs allow_pickle=True, "
        "so open only archives that you made yourself"
    )


def _without_labels(row: int, clip: Clip, modality: str, outcome: str) -> dict[str, Any]:
    entry = {"row": row, "id": clip.id, "source_id": clip.source_id, "split": clip.split}
    return entry | {"feature": f"{modality} labels", "outcome": outcome, "reason": MEANING[outcome]}


def write_tensor_archive(path: Path, audio: dict[str, np.ndarray], visual: dict[str, np.ndarray]) -> None:
    """LSLD's archive: keys `label_a`, `label_v`, each a 0-d object array around {id: CPU tensor (10, 25) float32}."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {}
    for key, values in (("label_a", audio), ("label_v", visual)):
        tensors = {name: torch.from_numpy(np.asarray(array, np.float32).copy()) for name, array in values.items()}
        entries[key] = np.array(tensors, dtype=object)
    beside = path.with_name(path.name + ".partial")
    with open(beside, "wb") as file:
        np.savez(file, **entries)
    beside.replace(path)


def _notes(keys: dict[str, str], dtype: str, request: Request) -> list[str]:
    notes = []
    if dtype != "float32":
        notes.append(f"{dtype} features: HAN, VALOR and the others do not cast and fail; use float32")
    if lacking := [role.name for role in ROLES if role.name not in keys]:
        notes.append(f"not in the store, so not written: {', '.join(lacking)}")
    if not request.labels:
        notes.append("no --labels: VALOR, MM-CSE and LSLD also need pseudo-labels")
    notes.append("the loaders index table rows by position, which needs pandas below 3")
    return notes
