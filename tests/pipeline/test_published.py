"""Which results a paper's number may stand beside."""

import json

from pipeline.manifest import Manifest
from pipeline.predictions import Predictions
from pipeline.store import FeatureStore
from tests.pipeline import store_factory
from tests.pipeline.store_factory import spec
from tests.pipeline.training_factory import CLASSES, CONFIG, place, run  # noqa: F401 - a fixture


def test_published_numbers_are_those_of_the_recipes_own_features(place):  # noqa: F811
    config = CONFIG.replace("epochs: 4}\n  weak", "epochs: 1, published: {accuracy: 72.7}}\n  weak")
    (place / "avel.yaml").write_text(config)
    other = spec("vgg19", (2, 2, 6), modality="visual", recipe="default")
    made = Manifest.load(place / "manifest.parquet")
    tuned = spec("vggish", (5,), weights="sha256:" + "cd" * 32)
    for out, flags in (("own", ()), ("own-by-key", ("--audio", spec("vggish", (5,)).key))):
        assert run(place, *flags, out=out) == 0
    store = FeatureStore.create(place / "store", made, [other, tuned])
    store_factory.fill(store, made, other.key)
    store_factory.fill(store, made, tuned.key)
    for out, flags in (
        ("other", ("--visual", "vgg19", "--audio", spec("vggish", (5,)).key)),
        ("tuned", ("--audio", tuned.key)),
    ):
        assert run(place, *flags, out=out) == 0
    (place / "avel.yaml").write_text(config.replace("72.7", "72.8"))  # no reason to train anew
    assert run(place, "--audio", spec("vggish", (5,)).key, out="own-by-key") == 0
    (place / "avel.yaml").write_text(config)
    for out, published in (
        ("own", {"accuracy": 72.7}),
        ("own-by-key", {}),  # the store has two of that name by now, and this one is not the published one
        ("other", {}),
        ("tuned", {}),
    ):
        assert json.loads((place / out / "train.json").read_text())["published"] == published
        assert Predictions.load(place / out / "predictions.npz").facts["recipe"]["published"] == published


def test_published_numbers_are_of_the_papers_dataset(place):  # noqa: F811
    (place / "avel.yaml").write_text(
        CONFIG.replace("{epochs: 4}\n  weak", "{epochs: 1, published: {accuracy: 72.7}}\n  weak")
    )
    made = Manifest.load(place / "manifest.parquet")
    for dataset, published in (("ave", {"accuracy": 72.7}), ("own-clips", {})):
        Manifest(dataset, made.clips, CLASSES).save(place / "manifest.parquet")
        assert run(place, out=dataset) == 0
        assert json.loads((place / dataset / "train.json").read_text())["published"] == published
