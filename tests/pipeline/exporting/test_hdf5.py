"""hdf5: one file per block under a master."""

import h5py
import numpy as np
import pytest

from pipeline.exporting.hdf5 import check
from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import AUDIO, DEMO, export


def test_hdf5_is_one_file_per_block_and_a_master_that_moves_with_them(made):
    assert export(made, "hdf5") == 0
    (made / "out").rename(made / "moved")
    with h5py.File(made / "moved" / "ave.h5") as file:
        group = file[AUDIO.key]
        assert group["values"].is_virtual
        assert len(group["values"].virtual_sources()) == 3
        assert [axis.label for axis in group["values"].dims] == ["clip", "segment", "feature"]
        assert group["clip"].asstr()[:].tolist() == list(DEMO.ids)
        for row in range(10):
            assert group["length"][row] == (0 if row == 3 else 10)
            expected = np.full((10, 6), np.nan) if row == 3 else factory.rows_of(AUDIO, row, 10)
            np.testing.assert_array_equal(group["values"][row], expected)
        assert group["segments"].attrs["units"] == "s"
    with h5py.File(made / "moved" / "blocks" / AUDIO.key / "000002.h5") as file:
        np.testing.assert_array_equal(file["values"][1], factory.rows_of(AUDIO, 9, 10))


def test_what_hdf5_has_no_choice_in_is_refused_together(made, capsys):
    factory.manifest(4).save(made / "few.parquet")
    with pytest.raises(SystemExit):
        export(made, "hdf5", "--feature", "visual=vgg19", "--dtype", "float64", "--manifest", made / "few.parquet")
    said = capsys.readouterr().err
    for words in ("--feature: every feature", "--dtype float64: every array", "whose 10 clips are not the 4 of"):
        assert words in said
    assert not (made / "out").exists()


def test_hdf5_check_names_a_block_file_that_is_gone(made):
    assert export(made, "hdf5") == 0
    store = factory.FeatureStore.open(made / "S")
    assert check(made / "out" / "ave.h5", store) == []
    (made / "out" / "blocks" / AUDIO.key / "000001.h5").unlink()
    (problem,) = check(made / "out" / "ave.h5", store)
    assert "000001.h5 is missing" in problem
