"""Small manifests and stores with values that a test can recompute."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline.manifest import Clip, Event, Manifest
from pipeline.store import FeatureStore

CLASSES = ("Bell", "Dog", "Cat")


def manifest(count: int = 10, dataset: str = "ave", durations: tuple[float, ...] = (10.0,)) -> Manifest:
    """Clips whose ids are eleven letters long; the last one repeats the video of the first."""
    clips = []
    for row in range(count):
        source = f"video-{0 if row == count - 1 else row:05d}"
        label = CLASSES[row % len(CLASSES)]
        split = ("train", "train", "train", "val", "test")[row % 5]
        events = (Event(label, "both", float(row % 4), float(row % 4 + 5)),)
        duration_s = durations[row % len(durations)]
        clips.append(Clip(f"{row:04d}_{source}", source, None, duration_s, split, (label,), events))
    return Manifest(dataset, tuple(clips), CLASSES, {"licence": "CC0-1.0", "title": "a small set"})


def spec(
    encoder: str = "vggish",
    shape: tuple[int, ...] = (4,),
    dtype: str = "float32",
    recipe: str = "ave2018",
    count: int | None = 10,
    weights: str = "sha256:" + "ab" * 32,
    modality: str = "audio",
    window_s: float = 1.0,
) -> FeatureSpec:
    sampler = FrameSampler() if modality == "visual" else None
    grid = Grid(window_s, window_s, count)
    return FeatureSpec(
        encoder, recipe, modality, "last", ("front",), ("relu",), grid, sampler, shape, dtype, "fp32", weights
    )


def rows_of(spec: FeatureSpec, row: int, count: int) -> np.ndarray:
    """(count, *shape) values of one clip: reproducible, not negative, different for every clip and key."""
    seed = [row, *spec.key.encode()]
    values = np.random.default_rng(seed).gamma(1.0, size=(count, *spec.shape))
    return values.astype(spec.dtype)


def fill(store: FeatureStore, made: Manifest, key: str, absent: set[int] = frozenset(), rows: range | None = None):
    """Write every uncommitted block of a key."""
    spec = store.spec(key)
    for block, span in store.blocks(key, rows):
        if store.commit_path(key, block).exists():
            continue
        writer = store.writer(key, block)
        for row in span:
            segments = spec.grid.segments(made.clips[row].duration_s)
            if row in absent:
                writer.fail(row, "absent", f"no file for {made.clips[row].id}")
            else:
                writer.put(row, rows_of(spec, row, len(segments)), segments)
        writer.commit()


def store(path: Path, made: Manifest, specs: list[FeatureSpec], absent: set[int] = frozenset(), **options):
    """A complete store."""
    filled = FeatureStore.create(path, made, specs, **options)
    for entry in specs:
        fill(filled, made, entry.key, absent)
    return filled


def flip(path: Path, offset: int = 20) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


NAMES = {"visual": "vgg19:ave2018", "audio": "vggish:ave2018"}


def trainable(path: Path) -> tuple[Manifest, FeatureStore, list[FeatureSpec]]:
    """Twenty clips with a feature for each stream of `NAMES`; clips 1 and 18 have none."""
    made = manifest(20)
    specs = [spec("vgg19", (2, 2, 3), modality="visual"), spec("vggish", (4,))]
    return made, store(path, made, specs, absent={1, 18}), specs


class Labels:
    """A `LabelReader`: all ones for sound and zeros for pictures, except for the clips of `lacking`."""

    def __init__(self, manifest, classes=None, segments=10, lacking=None):
        self.ids, self.classes = manifest.ids, classes or manifest.classes
        self.segments, self.lacking = segments, lacking or {}

    def outcomes(self, modality):
        return dict.fromkeys(self.ids, "ok") | self.lacking.get(modality, {})

    def read(self, clip_id, modality):
        return np.full((self.segments, len(self.classes)), modality == "audio", dtype=np.uint8)
