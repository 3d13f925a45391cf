"""From a feature store and a manifest to the tensors that a network trains on.

`Selection` decides, before anything is read, which clips can be used and counts the others by reason.  `ClipDataset` is
a map-style torch dataset over them; `in_memory` reads the same items into one tensor per name.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, get_worker_info

from pipeline.datasets import ave, llp
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore

_CLIPS_AT_ONCE = 64


class LabelReader(Protocol):
    """Pseudo-labels of single modalities; `pipeline.labels.LabelStore` is one."""

    classes: tuple[str, ...]

    def outcomes(self, modality: str) -> dict[str, str]:
        """Clip id -> `ok`, or why it has no labels."""
        ...

    def read(self, clip_id: str, modality: str) -> np.ndarray:
        """(T, C) 0 and 1 of one clip; `modality` is `audio` or `visual`."""
        ...


@dataclass(frozen=True)
class Selection:
    """The clips of a manifest that have rows under all wanted keys.

    Args:
        keys: stream -> key of the store.
        shapes: stream -> shape of one clip, (T, *row).
        segments: label rows of a clip; one per second.
        rows: split -> row numbers of the manifest, in manifest order.
        store_rows: manifest row -> row of the store.
        excluded: split -> reason -> number of clips; reasons are `stream: outcome`.
    """

    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    segments: int
    rows: dict[str, np.ndarray]
    store_rows: np.ndarray
    excluded: dict[str, dict[str, int]] = field(default_factory=dict)

    def coverage(self) -> dict[str, dict]:
        """Per split: clips asked for, clips used, and the others by reason."""
        return {
            split: {
                "clips": len(rows) + sum(self.excluded.get(split, {}).values()),
                "used": len(rows),
                "excluded": self.excluded.get(split, {}),
            }
            for split, rows in self.rows.items()
        }


def select(
    manifest: Manifest,
    store: FeatureStore,
    features: dict[str, str],
    splits: tuple[str, ...],
    labels: LabelReader | None = None,
    labelled: tuple[str, ...] = ("train",),
) -> Selection:
    """Find the usable clips of each split.

    Args:
        features: stream -> key or `encoder:recipe` name.
        splits: in which clips are wanted; others are ignored.
        labels: pseudo-labels that a clip of the splits `labelled` needs as well.
        labelled: `train`, or every split where the network itself reads pseudo-labels.
    Raises:
        ValueError: lists every feature that the store lacks with the command that makes it; no common clip; clips of
            different lengths; a split without any usable clip.
    """
    keys, problems = {}, []
    for stream, name in features.items():
        try:
            keys[stream] = store.key(name)
        except ValueError as error:
            problems.append(f"stream {stream!r}: {error}")
    if problems:
        raise ValueError("\n  ".join(["the store lacks features that the model reads:", *problems]))
    position = {clip_id: row for row, clip_id in enumerate(store.ids)}
    store_rows = np.array([position.get(clip_id, -1) for clip_id in manifest.ids], dtype=np.int64)
    if (store_rows < 0).all():
        raise ValueError(
            f"{store.path} holds features of {store.facts['dataset']} and none of the {len(manifest)} clips of this "
            f"manifest ({manifest.dataset}); give the store that was made from it"
        )
    shapes = {stream: (store.plan(key).segments, *store.spec(key).shape) for stream, key in keys.items()}
    reason = _reasons(store, keys, shapes, store_rows)
    if labels is not None:
        _need_labels(manifest, labels, labelled, reason)
    rows, excluded = {}, {}
    for split in splits:
        members = np.array([row for row, clip in enumerate(manifest.clips) if clip.split == split], dtype=np.int64)
        bad = [reason[row] for row in members if reason[row]]
        rows[split] = np.array([row for row in members if not reason[row]], dtype=np.int64)
        excluded[split] = dict(Counter(bad))
        if len(rows[split]) == 0:
            why = ", ".join(f"{count} x {name}" for name, count in excluded[split].items()) or "it has no clips at all"
            have = ", ".join(f"{name or '(none)'} {count}" for name, count in manifest.splits().items())
            problems.append(f"split {split!r} has no usable clip: {why}.  Splits of the manifest: {have}")
    if problems:
        raise ValueError("\n  ".join(["nothing to train or score on:", *problems]))
    return Selection(keys, shapes, _segments(manifest, shapes, rows), rows, store_rows, excluded)


def _reasons(
    store: FeatureStore, keys: dict[str, str], shapes: dict[str, tuple[int, ...]], store_rows: np.ndarray
) -> list[str]:
    """Per manifest row: why it cannot be used, or nothing."""
    reason = ["" if row >= 0 else "not in the store" for row in store_rows]
    for stream, key in keys.items():
        outcome = list(store.outcomes(key).values())
        length = store.lengths(key)
        for row, place in enumerate(store_rows):
            if reason[row]:
                continue
            if outcome[place] != "ok":
                reason[row] = f"{stream}: {outcome[place]} ({MEANING[outcome[place]]})"
            elif length[place] != shapes[stream][0]:
                reason[row] = f"{stream}: fewer rows than the longest clip"
    return reason


def _need_labels(manifest: Manifest, labels: LabelReader, splits: tuple[str, ...], reason: list[str]) -> None:
    for modality in ("audio", "visual"):
        outcomes = labels.outcomes(modality)
        for row, clip in enumerate(manifest.clips):
            if clip.split not in splits or reason[row]:
                continue
            outcome = outcomes.get(clip.id, "not in the label store")
            if outcome != "ok":
                reason[row] = f"{modality} pseudo-labels: {outcome}"


def _segments(manifest: Manifest, shapes: dict[str, tuple[int, ...]], rows: dict[str, np.ndarray]) -> int:
    used = [manifest.clips[row].duration_s for members in rows.values() for row in members]
    lengths = {round(duration_s) for duration_s in used if duration_s is not None}
    if len(lengths) > 1:
        raise ValueError(
            f"clips last {min(lengths)} to {max(lengths)} s; AVE and AVVP networks need clips of one length"
        )
    return lengths.pop() if lengths else max(shape[0] for shape in shapes.values())


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


BACKGROUND_FILES = {"visual": "visual_feature_noisy.h5", "audio": "audio_feature_noisy.h5"}


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


class ClipDataset(Dataset):
    """Items of one split: a dict of tensors per clip, or per list of clips.

    The store is opened when the first item is read, once per process, so the dataset may be pickled (spawn) or
    inherited (fork) by loader workers.  `DataLoader(dataset, batch_size=64)` works; `loader` is faster for wide
    features, because their batches are read into the very memory that they are handed over in.

    Args:
        store: path.
        labels: name -> (N, ...) arrays over all clips of the manifest, as `targets` makes them.
    """

    def __init__(self, store: Path, selection: Selection, split: str, labels: dict[str, np.ndarray]) -> None:
        self.path = Path(store)
        self.keys, self.shapes = selection.keys, selection.shapes
        self.rows = selection.rows[split]
        self.store_rows = selection.store_rows[self.rows]
        self.labels = {name: torch.from_numpy(np.ascontiguousarray(a[self.rows])) for name, a in labels.items()}
        self._opened: tuple[int, FeatureStore] | None = None
        self._finite = {stream: np.zeros(len(self.rows), bool) for stream in self.keys}  # looked at by this process

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    @property
    def store(self) -> FeatureStore:
        """The store, opened by this process: a forked worker must not share its parent's handles."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), FeatureStore.open(self.path))
        return self._opened[1]

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor]:
        """Streams (T, ...) float32 and labels of one clip; of n clips for a list, with n in front.

        Raises:
            ValueError: a feature is not finite.
        """
        if isinstance(index, Sequence):
            return self._batch(index, shared=get_worker_info() is not None)
        return {name: values[0] for name, values in self._batch([index]).items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """Items, read together; torch's loaders ask for a batch this way, and then copy it together."""
        batch = self._batch(indices)
        return [{name: values[place] for name, values in batch.items()} for place in range(len(indices))]

    @property
    def item_bytes(self) -> int:
        """Size of one item in memory."""
        streams = sum(4 * int(np.prod(shape)) for shape in self.shapes.values())
        return streams + sum(values[0].numel() * values.element_size() for values in self.labels.values())

    def in_memory(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """All items stacked, name -> (n, ...) on the device.

        Raises:
            ValueError: a feature is not finite; all such clips are named.
        """
        stacked = {name: values.to(device) for name, values in self.labels.items()}
        for stream in self.keys:
            whole = _empty((len(self), *self.shapes[stream]))
            self._read(stream, np.arange(len(self)), whole.numpy())
            stacked[stream] = whole.to(device)
        return stacked

    def _batch(self, indices: Sequence[int], shared: bool = False) -> dict[str, Tensor]:
        places = np.asarray(indices)
        found = {name: values[places] for name, values in self.labels.items()}
        for stream, shape in self.shapes.items():
            found[stream] = _empty((len(places), *shape), shared)
            self._read(stream, places, found[stream].numpy())
        return found

    def _read(self, stream: str, places: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (n, T, ...) float32, some clips at a time, so that memory does not follow n."""
        key, bad = self.keys[stream], []
        dtype = self.store.spec(key).dtype
        for start in range(0, len(places), _CLIPS_AT_ONCE):
            part, target = places[start : start + _CLIPS_AT_ONCE], out[start : start + _CLIPS_AT_ONCE]
            values = target if dtype == "float32" else np.empty(target.shape, dtype)
            self.store.rows_into(key, self.store_rows[part].tolist(), values)
            if values is not target:
                target[...] = values
            bad += [place for place, clip in zip(part, target, strict=True) if not self._is_finite(stream, place, clip)]
        if bad:
            raise ValueError(_not_finite(self.path, key, [self.store.ids[self.store_rows[place]] for place in bad]))

    def _is_finite(self, stream: str, place: int, values: np.ndarray) -> bool:
        """Looked at once per clip and process; the sum tells without a copy, unless it overflows."""
        if not self._finite[stream][place]:
            with np.errstate(all="ignore"):
                total = values.sum()
            self._finite[stream][place] = np.isfinite(total) or np.isfinite(values).all()
        return bool(self._finite[stream][place])


def loader(dataset: ClipDataset, size: int, shuffle: bool = False, workers: int = 0, **options: Any) -> DataLoader:
    """Batches of a dataset, each read straight into the memory that it is handed over in.

    Args:
        size: clips a batch; the last one may be smaller.
        workers: loader processes.
        options: of `torch.utils.data.DataLoader`; `generator` also decides the order.
    """
    order = RandomSampler(dataset, generator=options.get("generator")) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, size, drop_last=False)
    options = {"persistent_workers": workers > 0} | options
    return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, **options)


def _empty(shape: tuple[int, ...], shared: bool = False) -> Tensor:
    """float32 tensor to fill.  NumPy asks for huge pages, torch does not, and page faults cost more than reading.

    Args:
        shared: in shared memory, where a loader worker hands tensors over without a copy.
    """
    if not shared:
        return torch.from_numpy(np.empty(shape, np.float32))
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))  # as torch's own collate function does
    return torch.empty(0).set_(storage, 0, shape)


def _not_finite(path: Path, key: str, clips: list[str]) -> str:
    shown = ", ".join(clips[:10]) + (f" and {len(clips) - 10} more" if len(clips) > 10 else "")
    return (
        f"{path}: {key} holds NaN or infinity for {len(clips)} clip(s): {shown}.  FeatureStore.verify lists damage; "
        "extract these clips again, or remove them from the manifest"
    )
