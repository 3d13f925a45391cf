"""Statistics of values equal numpy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extractors.spec import Grid
from pipeline.reporting import values
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import demo_manifest, spec


def test_value_statistics(tmp_path: Path) -> None:
    manifest = demo_manifest(3)
    store = FeatureStore.create(tmp_path / "features", manifest, [spec()])
    rng = np.random.default_rng(1)
    arrays = [rng.normal(3.0, 2.0, (10, 4)).astype("float32"), np.zeros((10, 4), dtype="float32")]
    arrays[0][0, 0] = 0.0
    writer = store.writer(spec().key, 0)
    for row, rows in enumerate(arrays):
        writer.put(row, rows, Grid(1, 1, 10).segments(10.0))
    writer.fail(2, "absent", "no file")
    writer.commit()
    found = values.of_key(store, spec().key)
    both = np.concatenate(arrays).astype(np.float64)
    assert (found.clips, found.of_clips, found.rows) == (2, 2, 20)
    assert found.mean == pytest.approx(both.mean())
    assert found.std == pytest.approx(both.std())
    assert (found.low, found.high) == (both.min(), both.max())
    assert found.zeros == pytest.approx(41 / 80)
    assert found.constant_rows == pytest.approx(0.5)
    assert found.bad == 0
    assert values.of_key(store, spec().key, clips=1).clips == 1
    assert values.of_key(store, spec().key, budget=1).clips == 1
