"""Datasets over a store: what an item holds, and that worker processes can read it."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.batches import ClipDataset, loader, pseudo_targets, select, targets
from pipeline.manifest import Clip, Event, Manifest
from tests.pipeline import store_factory

NAMES = {"visual": "vgg19:ave2018", "audio": "vggish:ave2018"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s"
    manifest = store_factory.manifest(20)
    specs = [store_factory.spec("vgg19", (2, 2, 3), modality="visual"), store_factory.spec("vggish", (4,))]
    store = store_factory.store(path, manifest, specs, absent={1, 18})
    return manifest, store, specs


def dataset(made, split="train"):
    manifest, store, _ = made
    chosen = select(manifest, store, NAMES, ("train", "val", "test"))
    return ClipDataset(store.path, chosen, split, targets(manifest, "ave", chosen.segments))


def test_items_are_rows_and_labels_of_the_clip(made):
    manifest, _, specs = made
    train = dataset(made)
    assert len(train) == 11  # 12 training clips, one without media
    for place in (0, 5):
        row = train.rows[place]
        item = train[place]
        assert set(item) == {"visual", "audio", "labels", "video_labels"}
        np.testing.assert_array_equal(item["visual"].numpy(), store_factory.rows_of(specs[0], row, 10))
        event = manifest.clips[row].events[0]
        index = manifest.classes.index(event.label)
        assert item["labels"][:, index].nonzero().ravel().tolist() == list(range(int(event.start_s), int(event.end_s)))
        assert (item["labels"].sum(dim=1) == 1).all()
        assert item["video_labels"].tolist() == [float(index == n) for n in range(4)]


def test_in_memory_is_the_same(made):
    train = dataset(made)
    held = train.in_memory()
    for place in range(len(train)):
        for name, values in train[place].items():
            assert torch.equal(held[name][place], values)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same(made, method):
    train = dataset(made)
    expected = train.in_memory()  # the parent has the store open
    loader = DataLoader(
        train, batch_size=4, num_workers=1, multiprocessing_context=multiprocessing.get_context(method), timeout=120
    )
    found = list(loader)
    for name in expected:
        assert torch.equal(torch.cat([batch[name] for batch in found]), expected[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_batches_are_the_items_together(made, workers):
    train = dataset(made)
    expected = list(DataLoader(train, batch_size=4))
    found = list(loader(train, 4, workers=workers))
    assert [len(batch["audio"]) for batch in found] == [4, 4, 3]
    for batch, items in zip(found, expected, strict=True):
        assert set(batch) == set(items)
        for name, values in items.items():
            assert torch.equal(batch[name], values)
            assert batch[name].dtype == values.dtype
            assert batch[name].is_shared() == (workers > 0)


def test_the_order_of_batches_follows_the_generator(made):
    train = dataset(made)
    orders = [
        torch.cat(
            [batch["audio"] for batch in loader(train, 4, shuffle=True, generator=torch.Generator().manual_seed(s))]
        )
        for s in (1, 1, 2)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0].sort(dim=0).values, orders[2].sort(dim=0).values)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_features_of_other_types_are_handed_over_as_float32(tmp_path, dtype):
    manifest = store_factory.manifest(10)
    spec = store_factory.spec(dtype=dtype)
    store = store_factory.store(tmp_path / "s", manifest, [spec])
    chosen = select(manifest, store, {"audio": spec.key}, ("train",))
    (batch,) = loader(ClipDataset(store.path, chosen, "train", {}), 64)
    expected = [store_factory.rows_of(spec, row, 10) for row in chosen.rows["train"]]
    assert batch["audio"].dtype == torch.float32
    np.testing.assert_array_equal(batch["audio"].numpy(), np.stack(expected).astype(np.float32))


def test_features_that_are_not_finite_are_named(tmp_path):
    manifest = store_factory.manifest(10)
    spec = store_factory.spec()
    store = store_factory.store(tmp_path / "s", manifest, [spec])
    values = store.values(spec.key)
    spoiled = values[:]
    spoiled[2, 3, 0], spoiled[5, 0, :2] = np.nan, (np.inf, -np.inf)
    spoiled[6, 0] = 3e38  # finite, although their sum is not
    values[:] = spoiled
    train = ClipDataset(store.path, select(manifest, store, {"audio": spec.key}, ("train",)), "train", {})
    with pytest.raises(ValueError, match=f"for 2 clip.s.: {manifest.ids[2]}, {manifest.ids[5]}") as error:
        train.in_memory()
    assert manifest.ids[6] not in str(error.value)
    for _ in range(2):
        with pytest.raises(ValueError, match=manifest.ids[5]):
            train[[0, 1, 3]]
    assert train[0]["audio"].isfinite().all()


def test_an_opened_dataset_can_be_pickled(made):
    train = dataset(made)
    first = train[0]
    again = pickle.loads(pickle.dumps(train))  # noqa: S301  our own bytes
    assert torch.equal(again[0]["audio"], first["audio"])


def test_excluded_clips_are_counted_by_reason(made):
    manifest, store, _ = made
    chosen = select(manifest, store, NAMES, ("train", "val", "test"))
    assert chosen.coverage()["val"]["used"] == 3
    (reason,) = chosen.coverage()["val"]["excluded"]
    assert reason.startswith("visual: absent")
    with pytest.raises(ValueError, match="split 'teacher' has no usable clip"):
        select(manifest, store, NAMES, ("train", "teacher"))


def test_every_missing_feature_is_told_at_once(made):
    manifest, store, _ = made
    with pytest.raises(ValueError, match=r"(?s)encoders resnet50 .*encoders cnn14 "):
        select(manifest, store, {"visual": "resnet50", "audio": "cnn14"}, ("train",))


def llp_manifest():
    events = (Event("Dog", "audio", 2.0, 4.0), Event("Cat", "visual", 0.0, 3.0), Event("Bell", "both", 9.0, 10.0))
    return Manifest("llp", (Clip("a", "a", None, 10.0, "test", ("Dog", "Cat"), events),), store_factory.CLASSES)


def test_llp_targets():
    found = targets(llp_manifest(), "avvp", 10)
    assert found["video_labels"].tolist() == [[0, 1, 1]]
    assert np.argwhere(found["audio_labels"][0]).tolist() == [[2, 1], [3, 1], [9, 0]]
    assert np.argwhere(found["visual_labels"][0]).tolist() == [[0, 2], [1, 2], [2, 2], [9, 0]]


class Labels:
    """All ones for sound and zeros for pictures, except for the clips of `lacking`."""

    def __init__(self, manifest, classes=None, segments=10, lacking=None):
        self.ids, self.classes = manifest.ids, classes or manifest.classes
        self.segments, self.lacking = segments, lacking or {}

    def outcomes(self, modality):
        return dict.fromkeys(self.ids, "ok") | self.lacking.get(modality, {})

    def read(self, clip_id, modality):
        return np.full((self.segments, len(self.classes)), modality == "audio", dtype=np.uint8)


def test_pseudo_labels_must_be_of_the_same_dataset(made):
    manifest, store, _ = made
    chosen = select(manifest, store, NAMES, ("train", "val"))
    found = pseudo_targets(manifest, Labels(manifest), chosen)
    assert found["audio_pseudo"][chosen.rows["train"]].all()
    assert not found["audio_pseudo"][1].any(), "a clip that is not used"
    assert not found["visual_pseudo"].any()
    with pytest.raises(ValueError, match="pseudo-labels are of 2 classes"):
        pseudo_targets(manifest, Labels(manifest, ("Speech", "Car")), chosen)
    with pytest.raises(ValueError, match=r"expected \(10, 3\)"):
        pseudo_targets(manifest, Labels(manifest, segments=8), chosen)


def test_clips_without_pseudo_labels_are_left_out_and_counted(made):
    """In training; scores need none, unless the network itself reads them."""
    manifest, store, _ = made
    lacking = {"audio": {manifest.ids[2]: "no-audio", manifest.ids[3]: "no-audio"}}
    labels = Labels(manifest, lacking=lacking)
    splits = ("train", "val", "test")  # of the clips 2 and 3: train and val
    chosen = select(manifest, store, NAMES, splits, labels)
    assert chosen.excluded["train"]["audio pseudo-labels: no-audio"] == 1
    assert 2 not in chosen.rows["train"]
    assert 3 in chosen.rows["val"]
    assert chosen.coverage()["train"]["used"] == 10
    found = pseudo_targets(manifest, labels, chosen)
    assert found["audio_pseudo"][chosen.rows["train"]].all()
    assert not found["audio_pseudo"][3].any()
    everywhere = select(manifest, store, NAMES, splits, labels, splits)
    assert everywhere.excluded["val"]["audio pseudo-labels: no-audio"] == 1
    assert 3 not in everywhere.rows["val"]
