"""The clips that a fine-tuning learns from or is tested on: pictures on one side, mean audio vectors on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from extractors.spec import FeatureSpec
from pipeline.finetuning.frames import Frames
from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore


@dataclass(frozen=True)
class Side:
    """The clips of one or more splits that have audio features.

    Args:
        frames: where their pictures come from.
        audio: (n, D) mean audio vector of each clip.
        videos: (n,) number of the source video.
    """

    frames: Frames
    audio: Tensor
    videos: Tensor

    def __len__(self) -> int:
        return len(self.audio)


def side(
    manifest: Manifest, store: FeatureStore, key: str, splits: tuple[str, ...], media: Path, spec: FeatureSpec,
    count: int, seed: int, once: bool,
) -> tuple[Side, Counter]:  # fmt: skip
    """Clips of some splits with their mean audio vectors, and the reasons of those that have none.

    Args:
        key: of the audio feature.
        media, spec, count, seed, once: see `Frames`.
    Raises:
        ValueError: fewer than two clips have audio, or rows are NaN or infinite.
    """
    known = set(store.ids)
    outcomes = store.outcomes(key)
    clips: list[Clip] = []
    vectors, excluded, spoiled = [], Counter(), []
    for clip in (clip for split in splits for clip in manifest.split(split)):
        outcome = outcomes[clip.id] if clip.id in known else "absent"
        if outcome != "ok":
            excluded[f"audio: {outcome}"] += 1
            continue
        rows = store.read(clip.id, key).astype(np.float32)
        if not np.isfinite(rows).all():
            spoiled.append(clip.id)
            continue
        clips.append(clip)
        vectors.append(rows.reshape(-1, rows.shape[-1]).mean(axis=0))
    if spoiled:
        shown = ", ".join(spoiled[:10])
        raise ValueError(
            f"{store.path}: {key} holds NaN or infinity for {len(spoiled)} clip(s): {shown}. "
            "`python -m pipeline.verify` lists damage; extract them again"
        )
    if len(clips) < 2:
        have = ", ".join(f"{name or '(none)'} {count}" for name, count in manifest.splits().items())
        why = ", ".join(f"{count} x {name}" for name, count in excluded.items()) or "no clips"
        raise ValueError(
            f"splits {', '.join(splits)}: {len(clips)} clip(s) with {key} ({why}). The manifest has: {have}"
        )
    frames = Frames(clips, media, spec, count, seed, once)
    audio = torch.from_numpy(np.stack(vectors))
    return Side(frames, audio, numbered([clip.source_id for clip in clips])), excluded


def numbered(names: Sequence[str]) -> Tensor:
    """(n,) int64: equal names, equal numbers."""
    table = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([table[name] for name in names], dtype=torch.int64)
