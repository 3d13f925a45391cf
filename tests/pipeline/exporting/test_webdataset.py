"""webdataset: tar shards, read back by the package that others read them with."""

import io
import json

import numpy as np
import webdataset

from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import DEMO, VISUAL, export


def test_webdataset_round_trips_and_is_deterministic(made):
    assert export(made, "webdataset", out="one") == 0
    assert export(made, "webdataset", out="two") == 0
    names = sorted(path.name for path in (made / "one").glob("*.tar"))
    assert names == ["test-000000.tar", "train-000000.tar", "val-000000.tar"]
    seen = {}
    for name in names:
        assert (made / "one" / name).read_bytes() == (made / "two" / name).read_bytes()
        for sample in webdataset.WebDataset(str(made / "one" / name), shardshuffle=False):
            seen[int(sample["__key__"])] = sample
    assert sorted(seen) == list(range(10))
    for row, sample in seen.items():
        assert json.loads(sample["json"])["id"] == DEMO.ids[row]
        assert ("vggish_ave2018.npy" in sample) == (row != 3)
        values = np.load(io.BytesIO(sample["vgg19_ave2018.npy"]))
        np.testing.assert_array_equal(values, factory.rows_of(VISUAL, row, 10))


def test_features_that_share_a_name_are_all_exported(tmp_path):
    specs = [factory.spec(weights=weights) for weights in ("random:0", "random:1")]
    DEMO.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", DEMO, specs)
    assert export(tmp_path, "webdataset") == 0
    sample = next(iter(webdataset.WebDataset(str(tmp_path / "out" / "val-000000.tar"), shardshuffle=False)))
    for spec in specs:
        values = np.load(io.BytesIO(sample[f"vggish_ave2018_{spec.key.rpartition('.')[2]}.npy"]))
        np.testing.assert_array_equal(values, factory.rows_of(spec, int(sample["__key__"]), 10))
