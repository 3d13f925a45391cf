"""`dgsct`: frames and waveforms as DG-SCT reads them, made from the clips themselves.

    data/AVE/frames/<id>/00000001.jpg ... 00000010.jpg     data/AVE/wave/<id>.npy (320000,) float32
    data/AVE/Annotations.txt (with a header line)          data/AVE/{labels,mil_labels,train_order,test_order}.h5
    data/AVVP/LLP_dataset/frame/<id>/...                   data/AVVP/LLP_dataset/wave/<id>.npy

One frame from the middle of every second, ten seconds of mono sound at 32 kHz.  The folder lies two levels above
DG-SCT's scripts.  Rows of one video share its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from extractors.spec import FrameSampler, Grid
from pipeline.cluster import spread
from pipeline.datasets.ave import HEADER
from pipeline.exporting.ave_labels import write_labels, write_orders
from pipeline.exporting.llp_lists import write_lists
from pipeline.exporting.request import Export, Request
from pipeline.folder import save_npy
from pipeline.manifest import Clip, Manifest
from pipeline.outcomes import MEANING
from pipeline.store import StoreError

RATE_HZ = 32_000
SECONDS = 10
_GRID, _SAMPLER = Grid(1.0, 1.0, SECONDS), FrameSampler("centres")


def write(request: Request) -> Export:
    """Decode every clip once; on Dask workers if asked for.

    Raises:
        StoreError: no --media, flags that are of features, or clips without labels.
    """
    if request.chosen or request.dtype:
        raise StoreError("--format dgsct is pictures and sound: leave out --feature and --dtype")
    if request.media is None:
        raise StoreError("--format dgsct is made from the clips: pass --media DIR")
    if not request.media.is_dir():
        raise StoreError(f"--media {request.media}: no such folder")
    manifest = request.manifest
    if bare := [clip.id for clip in manifest.clips if not clip.labels]:
        raise StoreError(f"--format dgsct is for labelled clips; {len(bare)} have no label, the first is {bare[0]}")
    # AVE has one event in every clip, seen and heard; LLP's training clips have labels and no events.
    parsing = any({event.modality for event in clip.events} != {"both"} for clip in manifest.clips)
    root = request.folder / ("data/AVVP/LLP_dataset" if parsing else "data/AVE")
    root.mkdir(parents=True)
    frames = root / ("frame" if parsing else "frames")
    export = Export()
    gone: dict[int, None] = {}
    for row, feature, outcome, reason in _results(request, frames, root / "wave"):
        clip = manifest.clips[row]
        entry = {"row": row, "id": clip.id, "source_id": clip.source_id, "split": clip.split, "feature": feature}
        export.missing.append(entry | {"outcome": outcome, "reason": reason or MEANING[outcome]})
        gone[row] = None
    rows = [row for row in range(len(manifest)) if request.missing == "keep" or row not in gone]
    export.dropped = [manifest.ids[row] for row in gone] if request.missing == "renumber" else []
    for clip in (manifest.clips[row] for row in gone):
        if request.missing == "keep":
            _fill_gaps(frames / clip.source_id, root / "wave" / f"{clip.source_id}.npy")
    if parsing:
        write_lists(request, root.parent, rows, export)
    else:
        write_labels(root, manifest, rows, export)
        write_orders(root, manifest, rows, export)
        (root / "Annotations.txt").write_text(_annotations(manifest, rows), encoding="utf-8")
    export.arrays[f"{root.name}/wave"] = {"shape": [RATE_HZ * SECONDS], "dtype": "float32"}
    export.arrays[f"{root.name}/{frames.name}"] = {"files": SECONDS, "format": "jpg"}
    if gone and request.missing == "keep":
        export.notes.append("clips without media are black frames and silence")
    return export


def _results(request: Request, frames: Path, waves: Path) -> Iterator[tuple[int, str, str, str]]:
    """(row, frames|wave, outcome, reason) of everything that could not be made."""
    first: dict[str, int] = {}
    for row, clip in enumerate(request.manifest.clips):
        first.setdefault(clip.source_id, row)
    jobs = ((clip, request.media, frames, waves) for clip in request.manifest.clips if _is_first(clip, first, request))
    problems: dict[str, list[tuple[str, str, str]]] = {}
    for source_id, found in spread(write_clip, jobs, request.workers, request.scheduler):
        problems[source_id] = found
    for row, clip in enumerate(request.manifest.clips):
        for feature, outcome, reason in problems.get(clip.source_id, []):
            yield row, feature, outcome, reason


def _is_first(clip: Clip, first: dict[str, int], request: Request) -> bool:
    return request.manifest.clips[first[clip.source_id]] is clip


def write_clip(clip: Clip, media: Path, frames: Path, waves: Path) -> tuple[str, list[tuple[str, str, str]]]:
    """Ten frames and one wave of a clip, and what was not possible."""
    from extractors.base import NoAudio, NoVideo
    from pipeline.media import Media
    from pipeline.mediafile import FramesMissing, MediaError, find

    problems: list[tuple[str, str, str]] = []
    try:
        path, whole = find(clip, media)
        with Media(path, clip.start_s or 0.0 if whole else 0.0, clip.duration_s if whole else None) as opened:
            if opened.has_video:
                try:
                    _write_frames(opened, frames / clip.source_id)
                except FramesMissing:
                    opened.recount()
                    _write_frames(opened, frames / clip.source_id)
            else:
                problems.append(("frames", "no-video", ""))
            if opened.has_audio:
                save_npy(waves / f"{clip.source_id}.npy", _ten_seconds(opened.audio(RATE_HZ)))
            else:
                problems.append(("wave", "no-audio", ""))
    except MediaError as error:
        problems = [(name, error.outcome, str(error)) for name in ("frames", "wave")]
    except NoVideo as error:
        problems.append(("frames", "no-video", str(error)))
    except NoAudio as error:
        problems.append(("wave", "no-audio", str(error)))
    return clip.source_id, problems


def _write_frames(media: Any, folder: Path) -> None:
    segments = _GRID.segments(float(SECONDS))
    indices = _SAMPLER.indices(media.timeline(), segments, _GRID)[:, 0]
    _save_frames(folder, media.frames(indices))


def _save_frames(folder: Path, images: np.ndarray) -> None:
    """(n, H, W, 3) uint8 RGB as numbered JPEG files."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, start=1):
        Image.fromarray(image).save(folder / f"{number:08d}.jpg", quality=95)


def _ten_seconds(wave: np.ndarray) -> np.ndarray:
    """Exactly 320,000 samples in [-1, 1]: cut, or padded with silence; lossy codecs overshoot."""
    fixed = np.zeros(RATE_HZ * SECONDS, np.float32)
    fixed[: len(wave)] = np.clip(wave[: len(fixed)], -1, 1)
    return fixed


def _fill_gaps(frames: Path, wave: Path) -> None:
    if not frames.is_dir():
        _save_frames(frames, np.zeros((SECONDS, 224, 224, 3), np.uint8))
    if not wave.is_file():
        save_npy(wave, np.zeros(RATE_HZ * SECONDS, np.float32))


def _annotations(manifest: Manifest, rows: list[int]) -> str:
    lines = [HEADER]
    for clip in (manifest.clips[row] for row in rows):
        event = next((event for event in clip.events if event.modality == "both"), None)
        label, start_s, end_s = (event.label, event.start_s, event.end_s) if event else (clip.labels[0], 0, 0)
        lines.append(f"{label}&{clip.source_id}&good&{int(start_s)}&{int(end_s)}")
    return "\n".join(lines) + "\n"
