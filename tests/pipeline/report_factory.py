"""A small run for the tests of the report: features with chosen outcomes, and trainings with chosen errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline import score
from pipeline.manifest import Clip, Event, Manifest
from pipeline.predictions import Predictions
from pipeline.reporting import decisions
from pipeline.run import write_json
from pipeline.store import FeatureStore

CLASSES = ("bell", "drum", "bird")


def spec(weights: str = "sha256:" + "0" * 64, modality: str = "audio") -> FeatureSpec:
    return FeatureSpec(
        encoder="vggish" if modality == "audio" else "vgg19",
        recipe="default",
        modality=modality,
        layer="embedding",
        preprocess=("log mel, 64 bands",),
        postprocess=(),
        grid=Grid(1.0, 1.0, 10),
        sampler=FrameSampler() if modality == "visual" else None,
        shape=(4,),
        weights=weights,
    )


def demo_manifest(count: int = 24, classes: tuple[str, ...] = CLASSES) -> Manifest:
    """Clips of 10 s; clip i has the event i mod 3 from second 2 to second 6."""
    made = tuple(
        Clip(
            id=f"clip{i:03d}",
            source_id=f"clip{i:03d}",
            duration_s=10.0,
            split=("train", "train", "val", "test")[i % 4],
            labels=(classes[i % 3],),
            events=(Event(classes[i % 3], "both", 2.0, 6.0), Event(classes[i % 3], "audio", 2.0, 8.0)),
        )
        for i in range(count)
    )
    return Manifest("demo", made, classes, {"title": "a demonstration"})


def fill(store: FeatureStore, key: str, outcomes: dict[int, tuple[str, str]], blocks: list[int] | None = None) -> None:
    """Rows for every clip but those with an outcome; only some blocks if asked."""
    rng = np.random.default_rng(0)
    width = store.spec(key).shape
    for block, span in store.blocks(key):
        if blocks is not None and block not in blocks:
            continue
        writer = store.writer(key, block)
        for row in span:
            if row in outcomes:
                writer.fail(row, *outcomes[row])
            else:
                writer.put(row, rng.normal(size=(10, *width)).astype("float32"), Grid(1, 1, 10).segments(10.0))
        writer.commit()


def add_training(folder: Path, manifest: Manifest, model: str, seed: int, errors: float) -> None:
    """A training's files with a share of wrong test segments, and its scores by `pipeline.score`."""
    rng = np.random.default_rng(100 * seed + len(model))
    test = manifest.split("test")
    target = np.stack([np.pad(decisions.truth(clip, "both", 10, CLASSES), ((0, 0), (0, 1))) for clip in test]).astype(
        float
    )
    right = target.argmax(axis=2)
    guess = np.where(rng.random(right.shape) < errors, rng.integers(0, len(CLASSES) + 1, right.shape), right)
    features = {"audio": {"key": spec("random:0").key, "name": "vggish", "weights": "random:0"}}
    facts = {
        "model": model, "setting": "supervised", "task": "ave", "gate_is": "logits", "seed": seed, "features": features,
        "dataset": "demo", "manifest": manifest.digest, "labels": None, "precision": "fp32", "annotations": {},
        "coverage": {"test": {"clips": len(test), "used": len(test), "excluded": {}}},
        "recipe": {"published": {"accuracy": 72.7, "note": "on AVE"}}, "best": {"best-validation": 1},
    }  # fmt: skip
    name = f"{model}-supervised-{seed}"
    run = folder / "train" / name
    run.mkdir(parents=True)
    Predictions(
        np.array([clip.id for clip in test]),
        np.array(["test"] * len(test)),
        {"best-validation": {"scores": np.eye(len(CLASSES) + 1)[guess]}},
        facts,
    ).save(run / "predictions.npz")
    lines = [
        {
            "epoch": epoch,
            "lr": 1e-3,
            "loss": {"total": 2.5 / (epoch + 1)},
            "train_s": 0.5,
            "val": {"accuracy": 50 + epoch},
        }
        for epoch in range(5)
    ]
    write_json(run / "curves.json", lines)
    write_json(run / "train.json", {"stage": "train", "arguments": facts, "versions": {}, "parameters": 1335246})
    scored = ["--predictions", str(run / "predictions.npz"), "--out", str(folder / "scores" / f"{name}.json")]
    assert score.main(["--manifest", str(folder / "manifest.parquet"), *scored]) == 0
