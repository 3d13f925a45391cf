"""Frames of clips for fine-tuning: one out of each equal part of a clip, drawn by a seed, never by worker or order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from extractors import frames
from extractors.base import NoVideo
from extractors.spec import FeatureSpec
from pipeline.manifest import Clip
from pipeline.media import Media
from pipeline.mediafile import MediaError, find
from pipeline.memory import free_bytes


def draw(timeline_s: np.ndarray, duration_s: float, count: int, seed: Sequence[int]) -> np.ndarray:
    """(count,) frame numbers: a random frame of each of `count` equal parts, the nearest where a part has none.

    Args:
        timeline_s: (N,) times of the frames.
        seed: the same numbers give the same frames, whatever was drawn before.
    """
    rng = np.random.default_rng(list(seed))
    times_s = (np.arange(count) + rng.random(count)) * duration_s / count
    return np.clip(np.searchsorted(timeline_s, times_s, side="right") - 1, 0, len(timeline_s) - 1)


#: Place, pictures (K, S, S, 3), and why there are none.
Item = tuple[int, Tensor | None, str]
#: Places and pictures (b, K, S, S, 3) of the clips that could be read; reasons of the others.
Batch = tuple[list[int], Tensor | None, dict[int, str]]


class Frames(Dataset):
    """Item (epoch, place) -> place and the clip's pictures, or the reason why there are none.

    Args:
        clips: in a fixed order; the place is part of the seed.
        media: folder.
        spec: of the encoder; its geometry runs here, its values on the device.
        count: pictures per clip.
        seed: of all draws.
        once: draw as in epoch 0 in every epoch; the pictures are then kept in memory if they fit (`room_bytes`).
    """

    def __init__(
        self, clips: Sequence[Clip], media: Path, spec: FeatureSpec, count: int, seed: int, once: bool
    ) -> None:
        self.clips, self.media, self.count, self.seed, self.once = tuple(clips), Path(media), count, seed, once
        self.geometry = frames.split(spec.preprocess)[0]
        self.source = spec.sampler.source
        self.kept: dict[int, Item] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": {}}  # loader workers decode; what is kept stays here

    def keep(self, batch: Batch) -> None:
        """Remember the items of a batch, if those of all clips fit."""
        pictures = batch[1]
        if self.once and (pictures is None or pictures[0].nbytes * len(self) <= room_bytes()):
            self.kept |= _items(batch)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: tuple[int, int]) -> Item:
        epoch, place = index
        clip = self.clips[place]
        try:
            path, whole = find(clip, self.media)
            with Media(path, (clip.start_s or 0.0) if whole else 0.0, clip.duration_s if whole else None) as view:
                timeline_s = view.timeline(self.source)
                if len(timeline_s) == 0:
                    raise NoVideo(f"clip {clip.id}: no frame decodes")
                chosen = draw(
                    timeline_s,
                    clip.duration_s or view.duration_s,
                    self.count,
                    (self.seed, 0 if self.once else epoch, place),
                )
                unique, inverse = np.unique(chosen, return_inverse=True)
                pictures = frames.apply(self.geometry, torch.tensor(view.frames(unique, self.source)))
        except MediaError as error:
            return place, None, error.outcome
        except NoVideo:
            return place, None, "no-video"
        return place, pictures[torch.from_numpy(inverse)], ""


def room_bytes() -> int:
    """Memory for kept pictures: a quarter of what is free, shared by the processes of this machine."""
    return free_bytes() // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _collate(items: Sequence[Item]) -> Batch:
    good = [(place, pictures) for place, pictures, _ in items if pictures is not None]
    refused = {place: reason for place, pictures, reason in items if pictures is None}
    stacked = torch.stack([pictures for _, pictures in good]) if good else None
    return [place for place, _ in good], stacked, refused


def _items(batch: Batch) -> dict[int, Item]:
    """`_collate` undone; what it returns holds nothing of the batch's memory, which a loader shares with a worker."""
    places, pictures, refused = batch
    good = {} if pictures is None else dict(zip(places, pictures.unbind(), strict=True))
    return {place: (place, some.clone(), "") for place, some in good.items()} | {
        place: (place, None, reason) for place, reason in refused.items()
    }


def batches(dataset: Frames, epoch: int, groups: Sequence[Sequence[int]], workers: int) -> Iterator[Batch]:
    """One item per group of places, in order; with workers, the next ones are decoded while a group is used."""
    lacking = [[place for place in group if place not in dataset.kept] for group in groups]
    decoded = iter(
        DataLoader(
            dataset,
            batch_sampler=[[(epoch, place) for place in places] for places in lacking if places],
            collate_fn=_collate,
            num_workers=workers if any(lacking) else 0,
            prefetch_factor=2 if workers and any(lacking) else None,
            multiprocessing_context="spawn" if workers and any(lacking) else None,
        )
    )
    for group, places in zip(groups, lacking, strict=True):
        batch = next(decoded) if places else ([], None, {})
        if places:
            dataset.keep(batch)
        if len(places) < len(group):
            found = dataset.kept | _items(batch)
            batch = _collate([found[place] for place in group])
        yield batch
