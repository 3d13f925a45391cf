"""What a network is to learn, as arrays by the names that the losses use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets import ave, llp
from pipeline.manifest import Manifest
from pipeline.selection import LabelReader, Selection

BACKGROUND_FILES = {"visual": "visual_feature_noisy.h5", "audio": "audio_feature_noisy.h5"}


def targets(manifest: Manifest, task: str, segments: int) -> dict[str, np.ndarray]:
    """Label arrays over all clips of the manifest, by the names that the losses use.

    Returns:
        `ave`: `labels` (N, T, C + 1) one-hot with background last, `video_labels` (N, C + 1) one-hot.
        `avvp`: `video_labels` (N, C), weak; `audio_labels` and `visual_labels` (N, T, C), for evaluation only.
    Raises:
        ValueError: the labels are of another kind than the task.
    """
    if not manifest.classes:
        raise ValueError(f"the manifest of {manifest.dataset} has no classes, so there is nothing to learn from it")
    if task == "ave":
        if not any(event.modality == "both" for clip in manifest.clips for event in clip.events):
            raise ValueError(
                f"no event of {manifest.dataset} is audio-visual (modality `both`), so it has no labels of AVE's kind; "
                "train a model of task avvp on it, or give another manifest"
            )
        return {"labels": ave.segment_labels(manifest, segments), "video_labels": ave.mil_labels(manifest)}
    if not any(clip.labels for clip in manifest.clips):
        raise ValueError(f"no clip of {manifest.dataset} has clip-level labels, which weak training needs")
    audio, visual = llp.dense_grids(manifest.clips, manifest.classes, segments)
    return {
        "video_labels": llp.weak_labels(manifest.clips, manifest.classes),
        "audio_labels": audio.transpose(0, 2, 1),
        "visual_labels": visual.transpose(0, 2, 1),
    }


def pseudo_targets(manifest: Manifest, labels: LabelReader, selection: Selection) -> dict[str, np.ndarray]:
    """`audio_pseudo` and `visual_pseudo` (N, T, C) over all clips of the manifest; zeros where a clip has none.

    `select` has left out and counted the clips that need labels and have none.

    Raises:
        ValueError: labels of another vocabulary or of another number of segments.
    """
    if tuple(labels.classes) != manifest.classes:
        raise ValueError(
            f"the pseudo-labels are of {len(labels.classes)} classes ({', '.join(labels.classes[:3])}, ...), the "
            f"manifest of {manifest.dataset} has {len(manifest.classes)} ({', '.join(manifest.classes[:3])}, ...)"
        )
    shape = (len(manifest), selection.segments, len(manifest.classes))
    found = {f"{modality}_pseudo": np.zeros(shape, dtype=np.float32) for modality in ("audio", "visual")}
    for modality in ("audio", "visual"):
        outcomes = labels.outcomes(modality)
        for row in np.concatenate(list(selection.rows.values())):
            if outcomes.get(manifest.clips[row].id) != "ok":
                continue
            values = labels.read(manifest.clips[row].id, modality)
            if values.shape != shape[1:]:
                raise ValueError(
                    f"clip {manifest.clips[row].id}: {modality} pseudo-labels of shape {values.shape}, "
                    f"expected {shape[1:]}"
                )
            found[f"{modality}_pseudo"][row] = values
    return found


def background_clips(folder: Path, shapes: dict[str, tuple[int, ...]], classes: int) -> dict[str, Tensor]:
    """AVE's 178 published background-only clips, whose ids are lost, for weak training.

    Args:
        folder: with `visual_feature_noisy.h5` and `audio_feature_noisy.h5`, array `avadataset` in each.
        shapes: of a clip in each stream.
        classes: event classes; the clips get the background label after them.
    Returns:
        Streams, `labels` and `video_labels`, as in a batch.
    Raises:
        ValueError: a file is missing, or holds features of other shapes than those trained on.
    """
    import h5py

    found: dict[str, Tensor] = {}
    for stream, name in BACKGROUND_FILES.items():
        if not (Path(folder) / name).is_file():
            raise ValueError(f"{folder}: no {name}; the AVE authors distribute it")
        with h5py.File(Path(folder) / name) as file:
            found[stream] = torch.from_numpy(file["avadataset"][...].astype(np.float32))
        if found[stream].shape[1:] != shapes[stream]:
            raise ValueError(
                f"{Path(folder) / name}: clips of shape {tuple(found[stream].shape[1:])}, the features trained on have "
                f"{shapes[stream]}; background clips must be of the same encoders"
            )
    count, segments = found["audio"].shape[:2]
    if len(found["visual"]) != count:
        raise ValueError(f"{folder}: {count} clips of audio and {len(found['visual'])} of video")
    found["video_labels"] = torch.eye(classes + 1)[-1].repeat(count, 1)
    found["labels"] = found["video_labels"][:, None].repeat(1, segments, 1)
    return found
