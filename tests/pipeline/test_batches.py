"""Datasets over a store: what an item holds, and that worker processes can read it."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.batches import ClipDataset, loader
from pipeline.selection import select
from pipeline.targets import targets
from tests.pipeline import store_factory


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return store_factory.trainable(tmp_path_factory.mktemp("store") / "s")


def dataset(made, split="train"):
    manifest, store, _ = made
    chosen = select(manifest, store, store_factory.NAMES, ("train", "val", "test"))
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
