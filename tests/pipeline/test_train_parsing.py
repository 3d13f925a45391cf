"""Training the AVVP networks from a store and a label store, to scores."""

import json

import numpy as np
import pytest
import torch

from pipeline import score, train
from pipeline.labels import Labelling, LabelStore, Scoring, create
from pipeline.manifest import Clip, Event, Manifest
from pipeline.store import FeatureStore
from tests.pipeline.store_factory import spec

CLASSES = ("Bell", "Dog", "Cat")
SPECS = {
    "audio": spec("clap", (6,), recipe="valor2023"),
    "visual": spec("clip-l14", (6,), recipe="valor2023", modality="visual"),
    "motion": spec("r2plus1d", (4,), recipe="llp2020", modality="visual"),
}
CONFIG = """
features: {audio: "clap:valor2023", visual: "clip-l14:valor2023", motion: "r2plus1d:llp2020"}
network: {width: 16, heads: 2, hidden: 32}
optimizer: {name: adam, lr: 1.0e-2}
batch: 8
epochs: 12
settings:
  weak: {}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Clips with one heard and one seen class; features and pseudo-labels show them."""
    folder = tmp_path_factory.mktemp("llp")
    rng = np.random.default_rng(0)
    clips, grids = [], []
    for split, count in {"train": 24, "val": 6, "test": 9}.items():
        for number in range(count):
            heard, seen = CLASSES[number % 3], CLASSES[(number // 3) % 3]
            events = (Event(heard, "audio", 0.0, 6.0), Event(seen, "visual", 3.0, 10.0))
            name = f"{split}-{number:03d}"
            clips.append(Clip(name, name, 0.0, 10.0, split, tuple({heard: 0, seen: 0}), events))
            cells = np.zeros((2, 10, 3), dtype=np.uint8)
            cells[0, :6, CLASSES.index(heard)] = 1
            cells[1, 3:, CLASSES.index(seen)] = 1
            grids.append(cells)
    manifest = Manifest("llp", tuple(clips), CLASSES)
    manifest.save(folder / "manifest.parquet")
    store = FeatureStore.create(folder / "store", manifest, list(SPECS.values()))
    for stream, entry in SPECS.items():
        _fill(store, entry, lambda row, s=stream: _show(rng, grids[row], s))
    scorings, labellings = [], []
    for modality, text in (("audio", np.eye(3, 5)), ("visual", np.eye(3, 4))):
        scoring = Scoring(modality, SPECS[modality], CLASSES, CLASSES, 1.0)
        scorings.append((scoring, text))
        for mask in ("video-label", "none"):
            labellings.append((Labelling(scoring.spec.key, "valor2023", (0.5,) * 3, mask), scoring))
    labels = create(folder / "labels", manifest, scorings, labellings)
    for labelling, scoring in labellings:
        _fill(labels, labelling.spec(scoring), lambda row, m=scoring.modality: grids[row][int(m == "visual")])
    return folder


def _show(rng, cells, stream):
    shown = cells[0 if stream == "audio" else 1]
    values = rng.normal(0, 0.1, (10, *SPECS[stream].shape)).astype(np.float32)
    values[:, :3] += 2 * shown
    return values


def _fill(store, entry, values):
    for block, span in store.blocks(entry.key):
        writer = store.writer(entry.key, block)
        for row in span:
            writer.put(row, values(row), entry.grid.segments(10.0))
        writer.commit()


def run(place, model, *more, labels=True, extra=""):
    config = place / f"{model}.yaml"
    config.write_text(f"model: {model}\n{CONFIG}".replace("hidden: 32", f"hidden: 32{extra}"))
    flags = ["--labels", str(place / "labels")] if labels else []
    where = [
        "--manifest",
        str(place / "manifest.parquet"),
        "--store",
        str(place / "store"),
        "--out",
        str(place / model),
    ]
    return train.main([*where, "--model", model, "--setting", "weak", "--config", str(config), *flags, *more])


@pytest.mark.parametrize("model", ["han", "valor-plus", "link"])
def test_learns_and_is_scored(place, model):
    assert run(place, model) == 0
    out = place / f"{model}.json"
    files = ["--predictions", str(place / model / "predictions.npz")]
    assert score.main(["--manifest", str(place / "manifest.parquet"), *files, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    kept = json.loads((place / model / "train.json").read_text())
    test = result["runs"][0]["scores"]["best-validation"]["test"]
    assert test == kept["best"]["best-validation"]["test"], "recomputed from the stored predictions"
    assert test["segment"]["Type"] > result["references"]["test"]["nothing"]["segment"]["Type"]
    if model != "han":  # pseudo-labels say what is heard and what is seen
        assert test["segment"]["Type"] > result["references"]["test"]["weak label everywhere"]["segment"]["Type"]
        assert set(result["labels"]) == {"audio", "visual"}


def test_the_trained_weight_of_the_similarity_loss_is_in_the_curves(place):
    """Training pulls it to 1, where it does nothing; a person should see how far."""
    for model, out in (("link", "mu"), ("han", "none")):
        assert run(place, model, "--epochs", "2", "--out", str(place / out)) == 0
    lines = json.loads((place / "mu" / "curves.json").read_text())
    kept = torch.load(place / "mu" / "checkpoint.pt", weights_only=True)["network"]["mu"]
    assert lines[-1]["watched"] == {"mu": float(kept)}
    assert 1 < lines[1]["watched"]["mu"] < lines[0]["watched"]["mu"] < 2
    assert "watched" not in json.loads((place / "none" / "curves.json").read_text())[0]


def test_labels_made_anew_are_other_data(place, capsys):
    flags = ["--epochs", "1", "--out", str(place / "again")]
    assert run(place, "valor-plus", *flags) == 0
    labels = FeatureStore.create(place / "labels", Manifest.load(place / "manifest.parquet"), [])
    key = LabelStore.open(place / "labels").keys["audio"]
    rows = labels.values(key)[:]
    entry = labels.spec(key)
    _fill(labels, entry, lambda row: rows[row])
    assert run(place, "valor-plus", *flags) == 0
    _fill(labels, entry, lambda row: 1 - rows[row])
    with pytest.raises(SystemExit):
        run(place, "valor-plus", *flags)
    assert "other data" in capsys.readouterr().err
    _fill(labels, entry, lambda row: rows[row])


@pytest.mark.parametrize("model", ["han", "valor-plus"])
def test_motion_of_another_length_is_told(place, capsys, model):
    entry = spec("r2plus1d", (4,), recipe="half", modality="visual", count=20, window_s=0.5)
    store = FeatureStore.create(place / "store", Manifest.load(place / "manifest.parquet"), [entry])
    _fill(store, entry, lambda row: np.zeros((20, 4), np.float32))
    with pytest.raises(SystemExit):
        run(place, model, "--motion", "r2plus1d:half", "--out", str(place / "motion"))
    assert "'motion' has 20 rows" in capsys.readouterr().err


def test_missing_pseudo_labels_are_told(place, capsys):
    with pytest.raises(SystemExit):
        run(place, "valor", labels=False)
    assert "pipeline.pseudolabel" in capsys.readouterr().err


def test_labels_of_another_vocabulary_are_told(place, tmp_path, capsys):
    made = Manifest.load(place / "manifest.parquet")
    other = Manifest("llp", made.clips, (*CLASSES, "Cow"))
    other.save(tmp_path / "other.parquet")
    with pytest.raises(SystemExit):
        run(place, "valor", "--manifest", str(tmp_path / "other.parquet"))
    assert "pseudo-labels are of 3 classes" in capsys.readouterr().err
