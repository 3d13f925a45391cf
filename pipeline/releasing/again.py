"""Random clips of a release, made again from their media, against the rows that the release holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.base import Encoder, build, load
from extractors.weights import WeightsError
from pipeline.comparison import row_cosines
from pipeline.encoding import BatchedEncoder
from pipeline.manifest import Manifest
from pipeline.preparation import Failure, Task, prepare_clip
from pipeline.run import sha256_of
from pipeline.store import FeatureStore


@dataclass(frozen=True)
class Again:
    """One clip under one key.

    Args:
        cosine: smallest over the rows; 0 if the clip could not be made again.
        largest: absolute difference.
        note: why there are no rows to compare.
    """

    clip_id: str
    key: str
    cosine: float
    largest: float
    note: str = ""


def sample(manifest: Manifest, store: FeatureStore, count: int, seed: str) -> list[int]:
    """Rows of up to `count` clips that are `ok` under some key, chosen by hashing seed and id."""
    have = {clip_id for key in store for clip_id, outcome in store.outcomes(key).items() if outcome == "ok"}
    ranked = sorted(
        (hashlib.sha256(f"{seed}/{clip.id}".encode()).digest(), row)
        for row, clip in enumerate(manifest.clips)
        if clip.id in have
    )
    return sorted(row for _, row in ranked[:count])


def encoders(store: FeatureStore, weights: Sequence[Path] = ()) -> tuple[dict[str, Encoder], list[str]]:
    """Encoders by key, and one sentence for each key that cannot be made again here.

    Args:
        weights: checkpoints; a key takes the one whose hash it has, or the published one, or the seed that it names.
    Raises:
        FileNotFoundError: a checkpoint is not there.
    """
    files = {f"sha256:{sha256_of(path)}": path for path in weights}
    used = {store.spec(key).weights for key in store}
    loaded = {}
    problems = [
        f"--weights {path}: no feature was made with this file" for hash_, path in files.items() if hash_ not in used
    ]
    for key in store:
        spec = store.spec(key)
        choice = spec.weights if spec.random_weights else str(files.get(spec.weights, "pretrained"))
        try:
            encoder = load(spec.name, choice, precision=spec.precision)
        except (ValueError, ImportError, WeightsError) as error:
            wanted = "" if spec.random_weights else f"; it was made with {spec.weights}, give that file with --weights"
            problems.append(f"{key}: cannot be made again ({error}){wanted if choice == 'pretrained' else ''}")
            continue
        if encoder.spec.key == key:
            loaded[key] = encoder
        elif encoder.spec.weights != spec.weights:
            problems.append(
                f"{key}: made with {spec.weights}, the published weights are {encoder.spec.weights}; "
                "give the file with --weights"
            )
        else:
            problems.append(f"{key}: this version makes {encoder.spec.key} instead; see `release diff` for the fields")
    return loaded, problems


def extract_again(
    manifest: Manifest, store: FeatureStore, loaded: dict[str, Encoder], rows: list[int], media: Path
) -> list[Again]:
    """Decode, encode and compare; one clip at a time."""
    prepared = {key: build(encoder.spec) for key, encoder in loaded.items()}
    found = []
    for row in rows:
        clip = manifest.clips[row]
        keys = tuple(key for key in loaded if store.outcomes(key)[clip.id] == "ok")
        task = Task(row, clip, keys, tuple(store.plan(key).segments for key in keys))
        batched = {key: BatchedEncoder(loaded[key]) for key in keys}
        made: dict[str, np.ndarray] = {}
        for item in prepare_clip(task, prepared, media):
            if isinstance(item, Failure):
                found.append(Again(clip.id, item.key, 0.0, float("inf"), f"{item.outcome}: {item.message}"))
            else:
                for key in item.keys:
                    for done in batched[key].add(item):
                        made[key] = done.values
        for key in keys:
            for done in batched[key].flush():
                made[key] = done.values
        for key, values in made.items():
            kept = store.read(clip.id, key)
            if kept.shape != values.shape:
                note = f"shape {values.shape}, the release has {kept.shape}"
                found.append(Again(clip.id, key, 0.0, float("inf"), note))
            else:
                largest = float(np.abs(kept.astype(np.float64) - values).max())
                found.append(Again(clip.id, key, float(row_cosines(kept, values).min()), largest))
    return found
