"""A small AVE-like dataset with features that show its labels, and a training on it."""

import json

import numpy as np
import pytest

from pipeline import train
from pipeline.manifest import Clip, Event, Manifest
from pipeline.store import FeatureStore
from tests.pipeline.store_factory import spec

CLASSES = ("Bell", "Dog", "Cat")
SIZES = {"train": 24, "val": 6, "test": 6}


def data(folder, absent=(), sizes=SIZES, nan=(), noise=0.1):
    """A manifest and a store whose features show the class and the time of the event, with a little noise."""
    rng = np.random.default_rng(0)
    clips, targets = [], []
    for split, count in sizes.items():
        for number in range(count):
            label, start = number % 3, number % 4
            event = Event(CLASSES[label], "both", float(start), float(start + 5))
            name = f"{split}-{number:03d}"
            clips.append(Clip(name, name, None, 10.0, split, (CLASSES[label],), (event,)))
            targets.append((label, start))
    manifest = Manifest("ave", tuple(clips), CLASSES, {"annotations": {"Annotations.txt": {"version": "published"}}})
    manifest.save(folder / "manifest.parquet")
    specs = {
        "visual": spec("vgg19", (2, 2, 6), modality="visual"),
        "audio": spec("vggish", (5,)),
    }
    store = FeatureStore.create(folder / "store", manifest, list(specs.values()))
    for stream, entry in specs.items():
        for block, span in store.blocks(entry.key):
            writer = store.writer(entry.key, block)
            for row in span:
                label, start = targets[row]
                values = rng.normal(0, noise, (10, *entry.shape)).astype(np.float32)
                values[start : start + 5, ..., label] += 2.0
                if row in absent and stream == "audio":
                    writer.fail(row, "no-audio", "silent")
                else:
                    writer.put(row, values, entry.grid.segments(10.0))
            writer.commit()
    if nan:
        values = store.values(specs["audio"].key)
        for row in nan:
            broken = values[row]
            broken[3, 0] = np.nan
            values[row] = broken
    return manifest


CONFIG = """
model: avel
features: {visual: "vgg19:ave2018", audio: "vggish:ave2018"}
network: {hidden: 16, lstm: 8, head: 8}
optimizer: {name: adam, lr: 1.0e-2}
batch: 8
settings:
  supervised: {epochs: 4}
  weak: {epochs: 4}
"""


@pytest.fixture
def place(tmp_path):
    data(tmp_path)
    (tmp_path / "avel.yaml").write_text(CONFIG)
    return tmp_path


def run(place, *more, out="out"):
    where = ["--manifest", str(place / "manifest.parquet"), "--store", str(place / "store")]
    what = ["--model", "avel", "--config", str(place / "avel.yaml"), "--seed", "1"]
    return train.main([*where, *what, "--out", str(place / out), *more])


def curves(place, out="out"):
    lines = json.loads((place / out / "curves.json").read_text())
    return [{name: value for name, value in line.items() if name != "train_s"} for line in lines]
