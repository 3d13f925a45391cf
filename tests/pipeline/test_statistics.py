"""Statistics of a store against NumPy on all rows at once; workers and order change nothing."""

import json

import numpy as np
import pytest

from pipeline import moments, statistics
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory

AUDIO = factory.spec(shape=(6,))
MAP = factory.spec("vgg19", (2, 2, 3), modality="visual", count=None)
ABSENT = {2, 5}


@pytest.fixture
def made():
    return factory.manifest(10, durations=(10.0, 4.0))


@pytest.fixture
def store(tmp_path, made):
    return factory.store(tmp_path / "store", made, [AUDIO, MAP], ABSENT, job_clips=4)


def all_rows(made, spec):
    clips = [(row, spec.grid.rows(clip.duration_s)) for row, clip in enumerate(made.clips) if row not in ABSENT]
    return [factory.rows_of(spec, row, count).astype(np.float64) for row, count in clips]


def run(store, out, *more):
    assert statistics.main(["--store", str(store.path), "--out", str(out), "--bins", "7", *more]) == 0
    return json.loads((out / "statistics.json").read_text())["features"]


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_moments_and_histogram_are_numpys(store, made, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(moments, "VALUES_AT_ONCE", at_once)
    half = factory.spec("cnn14", shape=(6,), dtype="float16")
    factory.store(store.path, made, [half], ABSENT, job_clips=4)
    facts = run(store, tmp_path / "out")
    for spec in (AUDIO, MAP, half):
        rows = np.concatenate(all_rows(made, spec))
        found = np.load(tmp_path / "out" / f"{spec.key}.npz")
        np.testing.assert_allclose(found["mean"], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found["variance"], rows.var(axis=0), rtol=1e-9)
        np.testing.assert_array_equal(found["maximum"], rows.max(axis=0))
        counts, edges = np.histogram(rows, bins=7)
        np.testing.assert_array_equal(found["histogram"], counts)
        np.testing.assert_allclose(found["edges"], edges)
        assert facts[spec.key]["rows"] == len(rows)
        assert facts[spec.key]["deviation"] == pytest.approx(rows.std(), rel=1e-9)


def test_principal_axes_are_those_of_the_singular_value_decomposition(store, made, tmp_path):
    facts = run(store, tmp_path / "out", "--components", "3")
    for spec in (AUDIO, MAP):
        clips = [rows.reshape(len(rows), -1, spec.shape[-1]).mean(axis=1) for rows in all_rows(made, spec)]
        rows = np.concatenate(clips)
        _, singular, expected = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        found = np.load(tmp_path / "out" / f"{spec.key}.npz")
        overlap = np.abs(np.sum(found["axes"] * expected[:3].T, axis=0))
        np.testing.assert_allclose(overlap, 1.0, rtol=1e-6)
        np.testing.assert_allclose(facts[spec.key]["explained"], (singular**2 / (singular**2).sum())[:3], rtol=1e-6)
        points = np.stack([(clip.mean(axis=0) - rows.mean(axis=0)) @ found["axes"] for clip in clips])
        np.testing.assert_allclose(found["points"], points, atol=1e-5)
        assert found["point_rows"].tolist() == [row for row in range(10) if row not in ABSENT]


def test_a_large_offset_does_not_eat_the_variance():
    rows = np.random.default_rng(0).normal(size=(1000, 3)) + 1e8
    total = moments.Moments.of(rows[:300], True)
    total.add(moments.Moments.of(rows[300:], True))
    np.testing.assert_allclose(total.variance, rows.var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(total.scatter / 1000, np.cov(rows.T, bias=True), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_workers_give_the_same_bytes(store, tmp_path):
    run(store, tmp_path / "here", "--key", AUDIO.key)
    run(store, tmp_path / "there", "--key", AUDIO.key, "--workers", "1")
    for name in ("statistics.json", f"{AUDIO.key}.npz"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_only_committed_blocks_count(store, made, tmp_path):
    store.forget(AUDIO.key, 0)
    facts = run(store, tmp_path / "out", "--key", "vggish:ave2018")
    assert facts[AUDIO.key]["rows"] == 10 * len([row for row in range(4, 10) if row not in ABSENT])


def test_a_feature_without_rows_is_left_out_and_said(tmp_path, made, capsys):
    empty = FeatureStore.create(tmp_path / "empty", made, [AUDIO], job_clips=4)
    assert run(empty, tmp_path / "out") == {}
    assert "no clip has rows" in capsys.readouterr().err
