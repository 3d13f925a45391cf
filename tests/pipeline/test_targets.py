"""Targets: arrays of a manifest's labels, and pseudo-labels beside them."""

import numpy as np
import pytest

from pipeline.manifest import Clip, Event, Manifest
from pipeline.selection import select
from pipeline.targets import pseudo_targets, targets
from tests.pipeline import store_factory


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return store_factory.trainable(tmp_path_factory.mktemp("store") / "s")


def llp_manifest():
    events = (Event("Dog", "audio", 2.0, 4.0), Event("Cat", "visual", 0.0, 3.0), Event("Bell", "both", 9.0, 10.0))
    return Manifest("llp", (Clip("a", "a", None, 10.0, "test", ("Dog", "Cat"), events),), store_factory.CLASSES)


def test_llp_targets():
    found = targets(llp_manifest(), "avvp", 10)
    assert found["video_labels"].tolist() == [[0, 1, 1]]
    assert np.argwhere(found["audio_labels"][0]).tolist() == [[2, 1], [3, 1], [9, 0]]
    assert np.argwhere(found["visual_labels"][0]).tolist() == [[0, 2], [1, 2], [2, 2], [9, 0]]


def test_pseudo_labels_must_be_of_the_same_dataset(made):
    manifest, store, _ = made
    chosen = select(manifest, store, store_factory.NAMES, ("train", "val"))
    found = pseudo_targets(manifest, store_factory.Labels(manifest), chosen)
    assert found["audio_pseudo"][chosen.rows["train"]].all()
    assert not found["audio_pseudo"][1].any(), "a clip that is not used"
    assert not found["visual_pseudo"].any()
    with pytest.raises(ValueError, match="pseudo-labels are of 2 classes"):
        pseudo_targets(manifest, store_factory.Labels(manifest, ("Speech", "Car")), chosen)
    with pytest.raises(ValueError, match=r"expected \(10, 3\)"):
        pseudo_targets(manifest, store_factory.Labels(manifest, segments=8), chosen)
