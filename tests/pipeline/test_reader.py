"""Reading: one clip, many at once, by plain zarr, by many processes, while blocks are made again."""

import errno
import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import xarray
import zarr

from pipeline import shards
from pipeline.layout import plan
from pipeline.store import FeatureStore, NoRows, StoreError
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(10)
AUDIO = factory.spec()


@pytest.fixture
def store(tmp_path):
    return factory.store(tmp_path / "S", DEMO, [AUDIO], absent={3}, job_clips=4)


def test_weights_tell_features_of_one_name_apart(tmp_path):
    file = tmp_path / "tuned.safetensors"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    specs = [factory.spec(weights=made) for made in ("random:1", "random:10", f"sha256:{digest}")]
    store = factory.store(tmp_path / "S", DEMO, specs)
    names = [f"vggish:ave2018={choice}" for choice in ("random:1", "random:10", file)]
    assert [store.key(name) for name in names] == [spec.key for spec in specs]
    with pytest.raises(StoreError, match=r"several keys: .* or vggish:ave2018=WEIGHTS"):
        store.key("vggish:ave2018")
    with pytest.raises(StoreError, match="no single feature called 'vggish:ave2018=random:2'"):
        store.key("vggish:ave2018=random:2")
    with pytest.raises(StoreError, match="no single feature"):  # the published checkpoint is none of them
        store.key("vggish:ave2018=pretrained")


@pytest.mark.parametrize(
    ("dtype", "shape", "durations"),
    [("float32", (4,), (10.0,)), ("float16", (3, 3, 2), (10.0,)), ("float32", (4,), (10.0, 3.0, 7.5))],
)
def test_a_clip_reads_back_as_written_and_as_zarr_reads_it(tmp_path, dtype, shape, durations):
    made = factory.manifest(11, durations=durations)
    spec = factory.spec(dtype=dtype, shape=shape, count=None)
    store = factory.store(tmp_path / "S", made, [spec], job_clips=4)
    assert store.plan(spec.key).ragged == (len(durations) > 1)
    through_zarr = zarr.open_array(store.path / spec.key / "values", mode="r")[:]
    for row, clip in enumerate(made.clips):
        count = spec.grid.rows(clip.duration_s)
        values = store.read(clip.id, spec.key)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, factory.rows_of(spec, row, count))
        np.testing.assert_array_equal(values, through_zarr[row, :count])
        assert np.isnan(through_zarr[row, count:]).all()
        np.testing.assert_array_equal(store.times(clip.id, spec.key), spec.grid.segments(clip.duration_s))


def test_long_wide_clips_are_cut_into_chunks_that_are_read_as_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.layout._CHUNK_BYTES", 1000)
    made = factory.manifest(5, durations=(100.0, 7.0, 33.0))
    spec = factory.spec(shape=(16,), count=None)
    layout = plan(made, spec)
    assert layout.chunk_rows < 20
    assert layout.segments % layout.chunk_rows == 0
    store = factory.store(tmp_path / "S", made, [spec])
    for row, clip in enumerate(made.clips):
        expected = factory.rows_of(spec, row, spec.grid.rows(clip.duration_s))
        np.testing.assert_array_equal(store.read(clip.id, spec.key), expected)


BATCH = [7, 0, 2, 9, 0]


@pytest.mark.parametrize("memory", ["warm", "cold", "cannot tell"])
@pytest.mark.parametrize(("shape", "durations"), [((4,), (10.0,)), ((300, 300), (10.0,)), ((4,), (10.0, 12.0))])
def test_many_clips_are_read_at_once_in_any_order(tmp_path, monkeypatch, shape, durations, memory):
    made = factory.manifest(10, durations=durations)
    spec = factory.spec(shape=shape, count=None)
    store = factory.store(tmp_path / "S", made, [spec], job_clips=4)
    if memory == "cannot tell":  # a file system without RWF_NOWAIT
        monkeypatch.setattr(shards.os, "preadv", _unless_told_not_to_wait(os.preadv, errno.EOPNOTSUPP))
    if memory == "cold":
        monkeypatch.setattr(shards.os, "preadv", _unless_told_not_to_wait(os.preadv, errno.EAGAIN))
    for length in (10, 7):
        out = np.empty((len(BATCH), length, *shape), np.float32)
        store.rows_into(spec.key, BATCH, out)
        for row, values in zip(BATCH, out, strict=True):
            np.testing.assert_array_equal(
                values, factory.rows_of(spec, row, spec.grid.rows(durations[row % len(durations)]))[:length]
            )
            np.testing.assert_array_equal(store.rows_at(spec.key, row, length), values)


def _unless_told_not_to_wait(preadv, code):
    def call(file, buffers, start, flags=0):
        if flags:
            raise OSError(code, os.strerror(code))
        return preadv(file, buffers, start)

    return call


@pytest.mark.parametrize("memory", ["warm", "cold"])
def test_damage_in_a_batch_is_named(store, monkeypatch, memory):
    factory.flip(store.path / AUDIO.key / "values/c/1/0/0")
    if memory == "cold":
        monkeypatch.setattr(shards.os, "preadv", _unless_told_not_to_wait(os.preadv, errno.EAGAIN))
    sound = np.empty((2, 10, 4), np.float32)
    store.rows_into(AUDIO.key, [8, 0], sound)
    with pytest.raises(StoreError, match=r"values/c/1/0/0: bytes 0 to 164 differ .*pipeline\.verify"):
        store.rows_into(AUDIO.key, [0, 4], sound)


def test_a_batch_that_only_zarr_can_read_is_the_same(store, monkeypatch):
    expected = np.empty((len(BATCH), 10, 4), np.float32)
    store.rows_into(AUDIO.key, BATCH, expected)
    monkeypatch.setattr(shards.ClipReader, "open", lambda folder: None)
    through_zarr = np.empty_like(expected)
    FeatureStore.open(store.path).rows_into(AUDIO.key, BATCH, through_zarr)
    np.testing.assert_array_equal(through_zarr, expected)


def test_a_clip_without_rows_says_why(store):
    with pytest.raises(NoRows, match="no media file was found") as caught:
        store.read(DEMO.ids[3], AUDIO.key)
    assert caught.value.outcome == "absent"
    assert store.outcomes(AUDIO.key)[DEMO.ids[3]] == "absent"
    assert store.reasons(AUDIO.key) == {DEMO.ids[3]: f"no file for {DEMO.ids[3]}"}
    assert store.lengths(AUDIO.key).tolist() == [10, 10, 10, 0, 10, 10, 10, 10, 10, 10]


def test_unknown_clips_keys_and_folders_are_named(store, tmp_path):
    with pytest.raises(StoreError, match="no clip 'nobody' among 10"):
        store.read("nobody", AUDIO.key)
    with pytest.raises(StoreError, match=r"no key 'vgg\.x'"):
        store.read(DEMO.ids[0], "vgg.x")
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore.open(tmp_path)
    assert store.key("vggish:ave2018") == AUDIO.key


def test_plain_zarr_xarray_and_dask_read_the_store(store):
    import dask.array

    group = zarr.open_group(store.path, mode="r")
    assert group[f"{AUDIO.key}/values"].shape == (10, 10, 4)
    data = xarray.open_zarr(store.path / AUDIO.key, consolidated=False)
    assert data["values"].dims == ("clip", "segment", "feature")
    assert data["clip"].values.tolist() == list(DEMO.ids)
    lazily = dask.array.from_zarr(str(store.path / AUDIO.key / "values"))
    np.testing.assert_array_equal(lazily[0].compute(), store.read(DEMO.ids[0], AUDIO.key))


def _read_all(store, ids, key):
    return [store.read(clip_id, key).sum() for clip_id in ids]


@pytest.mark.parametrize("how", ["fork", "spawn", "threads", "pickle"])
def test_readers_may_be_forked_spawned_shared_by_threads_and_pickled(store, how):
    ids = [clip_id for clip_id in DEMO.ids if clip_id != DEMO.ids[3]]
    reader = FeatureStore.open(store.path)
    expected = _read_all(reader, ids, AUDIO.key)
    if how == "pickle":
        assert _read_all(pickle.loads(pickle.dumps(reader)), ids, AUDIO.key) == expected  # noqa: S301 own bytes
    elif how == "threads":
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: _read_all(reader, ids, AUDIO.key), range(16)):
                assert found == expected
    else:
        with get_context(how).Pool(1) as pool:
            assert pool.starmap(_read_all, [(reader, ids, AUDIO.key)]) == [expected]


def test_an_open_reader_sees_a_block_that_is_made_again(store, monkeypatch):
    monkeypatch.setattr("pipeline.shards.FRESH_S", 0)
    reader = FeatureStore.open(store.path)
    reader.read(DEMO.ids[0], AUDIO.key)
    store.forget(AUDIO.key, 0)
    with pytest.raises(NoRows, match="no job has handled it"):
        reader.read(DEMO.ids[0], AUDIO.key)
    writer = store.writer(AUDIO.key, 0)
    for row in range(4):
        writer.put(row, np.full((10, 4), row + 0.5, "float32"), AUDIO.grid.segments(10.0))
    writer.commit()
    assert (reader.read(DEMO.ids[3], AUDIO.key) == 3.5).all()


def test_an_open_reader_keeps_whole_old_rows_until_it_looks_again(store, monkeypatch):
    monkeypatch.setattr("pipeline.shards.FRESH_S", 1e9)
    reader = FeatureStore.open(store.path)
    reader.read(DEMO.ids[0], AUDIO.key)
    writer = store.writer(AUDIO.key, 0)
    for row in range(4):
        writer.put(row, np.full((10, 4), row + 0.5, "float32"), AUDIO.grid.segments(10.0))
    writer.commit()
    assert (store.read(DEMO.ids[1], AUDIO.key) == 1.5).all()
    np.testing.assert_array_equal(reader.read(DEMO.ids[1], AUDIO.key), factory.rows_of(AUDIO, 1, 10))
    reader.refresh()
    assert (reader.read(DEMO.ids[1], AUDIO.key) == 1.5).all()
