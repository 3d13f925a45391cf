"""Frames of clips for fine-tuning: one out of each equal part of a clip, drawn by a seed, never by worker or order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from extractors import frames
from extractors.base import NoVideo
from extractors.spec import FeatureSpec
from pipeline.manifest import Clip
from pipeline.media import Media, MediaError, find


def draw(timeline_s: np.ndarray, duration_s: float, count: int, seed: Sequence[int]) -> np.ndarray:
    """(count,) frame numbers: a random frame of each of `count` equal parts, the nearest where a part has none.

    Args:
        timeline_s: (N,) times of the frames.
        seed: the same numbers give the same frames, whatever was drawn before.
    """
    rng = np.random.default_rng(list(seed))
    times_s = (np.arange(count) + rng.random(count)) * duration_s / count
    return np.clip(np.searchsorted(timeline_s, times_s, side="right") - 1, 0, len(timeline_s) - 1)


class Frames(Dataset):
    """Item (epoch, place) -> place and the clip's pictures, or the reason why there are none.

    Args:
        clips: in a fixed order; the place is part of the seed.
        media: folder.
        spec: of the encoder; its geometry runs here, its values on the device.
        count: pictures per clip.
        seed: of all draws.
        once: draw as in epoch 0 in every epoch.
    """

    def __init__(
        self, clips: Sequence[Clip], media: Path, spec: FeatureSpec, count: int, seed: int, once: bool
    ) -> None:
        self.clips, self.media, self.count, self.seed, self.once = tuple(clips), Path(media), count, seed, once
        self.geometry = frames.split(spec.preprocess)[0]
        self.source = spec.sampler.source

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: tuple[int, int]) -> tuple[int, Tensor | None, str]:
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


Batch = tuple[list[int], Tensor | None, dict[int, str]]


def _collate(items: list[tuple[int, Tensor | None, str]]) -> Batch:
    """Places and pictures (b, K, S, S, 3) of the clips that could be read; reasons of the others."""
    good = [(place, pictures) for place, pictures, _ in items if pictures is not None]
    refused = {place: reason for place, pictures, reason in items if pictures is None}
    stacked = torch.stack([pictures for _, pictures in good]) if good else None
    return [place for place, _ in good], stacked, refused


def batches(dataset: Frames, epoch: int, groups: Sequence[Sequence[int]], workers: int) -> Iterator[Batch]:
    """One item per group of places, in order; with workers, the next ones are decoded while a group is used."""
    sampler = [[(epoch, place) for place in group] for group in groups]
    return iter(
        DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=_collate,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )
    )
