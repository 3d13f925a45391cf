"""Selection: which clips can be used, and why the others cannot."""

import pytest

from pipeline.selection import select
from pipeline.targets import pseudo_targets
from tests.pipeline import store_factory


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return store_factory.trainable(tmp_path_factory.mktemp("store") / "s")


def test_excluded_clips_are_counted_by_reason(made):
    manifest, store, _ = made
    chosen = select(manifest, store, store_factory.NAMES, ("train", "val", "test"))
    assert chosen.coverage()["val"]["used"] == 3
    (reason,) = chosen.coverage()["val"]["excluded"]
    assert reason.startswith("visual: absent")
    with pytest.raises(ValueError, match="split 'teacher' has no usable clip"):
        select(manifest, store, store_factory.NAMES, ("train", "teacher"))


def test_every_missing_feature_is_told_at_once(made):
    manifest, store, _ = made
    with pytest.raises(ValueError, match=r"(?s)encoders resnet50 .*encoders cnn14 "):
        select(manifest, store, {"visual": "resnet50", "audio": "cnn14"}, ("train",))


def test_clips_without_pseudo_labels_are_left_out_and_counted(made):
    """In training; scores need none, unless the network itself reads them."""
    manifest, store, _ = made
    lacking = {"audio": {manifest.ids[2]: "no-audio", manifest.ids[3]: "no-audio"}}
    labels = store_factory.Labels(manifest, lacking=lacking)
    splits = ("train", "val", "test")  # of the clips 2 and 3: train and val
    chosen = select(manifest, store, store_factory.NAMES, splits, labels)
    assert chosen.excluded["train"]["audio pseudo-labels: no-audio"] == 1
    assert 2 not in chosen.rows["train"]
    assert 3 in chosen.rows["val"]
    assert chosen.coverage()["train"]["used"] == 10
    found = pseudo_targets(manifest, labels, chosen)
    assert found["audio_pseudo"][chosen.rows["train"]].all()
    assert not found["audio_pseudo"][3].any()
    everywhere = select(manifest, store, store_factory.NAMES, splits, labels, splits)
    assert everywhere.excluded["val"]["audio pseudo-labels: no-audio"] == 1
    assert 3 not in everywhere.rows["val"]
