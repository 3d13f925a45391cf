"""`unav-npy`: one flat folder of `.npy` files and one json, as UnAV and CCNet read them.

    data/unav_100/av_features/<id>_rgb.npy (T, 1024)  <id>_flow.npy (T, 1024)  <id>_vggish.npy (T, 128)     UnAV
    data/unav_100/av_features/<id>_one_peace_video_finetune.npy  <id>_one_peace_audio.npy                   CCNet
    data/unav_100/annotations/unav100_annotations.json

Arrays are float32, time first.  The loader joins rgb and flow side by side, so both are cut to the shorter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import spread
from pipeline.exporting.request import Coverage, Export, Request, Role, choose, clip_array, cover
from pipeline.folder import save_npy
from pipeline.manifest import Manifest
from pipeline.store import FeatureStore, StoreError

ROLES = (
    Role("rgb", ("i3d-rgb:unav2023", "i3d-rgb:published"), (-1, 1024)),
    Role("flow", ("i3d-flow:unav2023", "i3d-flow:published"), (-1, 1024)),
    Role("vggish", ("vggish:unav2023", "vggish:published"), (-1, 128)),
    Role("one_peace_video_finetune", ("one-peace-video:published",), (-1, 0)),
    Role("one_peace_audio", ("one-peace-audio:published",), (-1, 0)),
)
#: What each peer opens for every video.
PEERS = {"UnAV": ("rgb", "flow", "vggish"), "CCNet": ("one_peace_video_finetune", "one_peace_audio")}
FEATURES = "data/unav_100/av_features"
ANNOTATIONS = "data/unav_100/annotations/unav100_annotations.json"
_SUBSETS = {"val": "validation"}
_CLIPS_AT_ONCE = 256


def write(request: Request) -> Export:
    """Write all features of a clip together, on Dask workers if asked for.

    Raises:
        StoreError: rgb and flow of a clip differ by more than one row, so one of them is on another grid.
    """
    keys = choose(request, ROLES)
    found = cover(request, keys)
    dtype = request.dtype or "float32"
    export = Export(keys, missing=found.missing)
    export.dropped = [request.manifest.ids[row] for row in sorted(set(range(len(request.manifest))) - set(found.rows))]
    cut = 0
    for count in spread(_write_clips, _jobs(request, keys, found, dtype), request.workers, request.scheduler):
        cut += count
    for role, key in keys.items():
        shape = ["T", *request.store.spec(key).shape]
        export.arrays[f"{FEATURES}/<id>_{role}.npy"] = {"shape": shape, "dtype": dtype, "files": len(found.rows)}
    path = request.folder / ANNOTATIONS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(annotations(request.manifest, found.rows)), encoding="utf-8")
    export.notes += _lacking(keys)
    if cut:
        export.notes.append(f"rgb and flow of {cut} clips differed by one row and were cut to the shorter")
    if request.missing == "keep" and found.missing:
        export.notes.append("clips without features are rows of zeros over the length of the clip")
    return export


def _lacking(keys: dict[str, str]) -> list[str]:
    """What a peer that finds some of its files will look for in vain."""
    notes = []
    for peer, roles in PEERS.items():
        lacking = [f"<id>_{role}.npy" for role in roles if role not in keys]
        if lacking and len(lacking) < len(roles):
            notes.append(
                f"{peer} also opens {' and '.join(lacking)}, and the store has no such feature: take published files "
                "in with `python -m pipeline.adopt --format unav-npy`, or name a feature with --feature ROLE=NAME"
            )
    return notes


def annotations(manifest: Manifest, rows: list[int]) -> dict[str, Any]:
    """The json as the loader reads it; class ids are positions in the vocabulary."""
    index = {name: position for position, name in enumerate(manifest.classes)}
    database = {
        clip.id: {
            "duration": clip.duration_s,
            "annotations": [
                {"segment": [event.start_s, event.end_s], "label": event.label, "label_id": index[event.label]}
                for event in clip.events
            ],
            "subset": _SUBSETS.get(clip.split, clip.split),
        }
        for clip in (manifest.clips[row] for row in rows)
    }
    return {"version": "unav100", "database": database}


def _jobs(request: Request, keys: dict[str, str], found: Coverage, dtype: str) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(found.rows), _CLIPS_AT_ONCE):
        clips = [
            (
                request.manifest.clips[row].id,
                request.manifest.clips[row].duration_s or 0.0,
                int(found.place[row]),
                {role: int(lengths[row]) for role, lengths in found.lengths.items()},
            )
            for row in found.rows[start : start + _CLIPS_AT_ONCE]
        ]
        yield request.folder / FEATURES, request.store.path, keys, dtype, clips


def _write_clips(
    folder: Path, path: Path, keys: dict[str, str], dtype: str, clips: list[tuple[str, float, int, dict[str, int]]]
) -> int:
    """Number of clips whose rgb and flow had to be cut."""
    store, cut = FeatureStore.open(path), 0
    for clip_id, duration_s, row, lengths in clips:
        arrays = {}
        for role, key in keys.items():
            shape = (-1, *store.spec(key).shape)
            if lengths[role]:
                arrays[role] = clip_array(store, key, row, lengths[role], shape).astype(dtype)
            else:
                arrays[role] = np.zeros((store.spec(key).grid.rows(duration_s), *shape[1:]), dtype)
        if "rgb" in arrays and "flow" in arrays and len(arrays["rgb"]) != len(arrays["flow"]):
            counts = len(arrays["rgb"]), len(arrays["flow"])
            if abs(counts[0] - counts[1]) > 1:
                raise StoreError(f"clip {clip_id}: {counts[0]} rows of rgb and {counts[1]} of flow; one grid is needed")
            cut += 1
            arrays |= {role: arrays[role][: min(counts)] for role in ("rgb", "flow")}
        for role, values in arrays.items():
            save_npy(folder / f"{clip_id}_{role}.npy", values)
    return cut
