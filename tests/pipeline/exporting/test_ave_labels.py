"""The labels and orders of all of AVE against the published files."""

import dataclasses
import hashlib
import json

import h5py
import numpy as np
import pytest

from pipeline.datasets import ave
from pipeline.datasets.description import load as describe
from pipeline.exporting.ave_labels import write_orders
from pipeline.exporting.request import Export
from pipeline.prepare import _keep_splits
from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import export, h5
from tests.real_data import FOLDER as DATA


@pytest.fixture(scope="module")
def published_ave():
    if not (DATA / "ave" / "labels.h5").exists():
        pytest.skip("the public AVE annotation files are not beside the project")
    return ave.read(describe("ave"), DATA / "ave")


@pytest.fixture(scope="module")
def all_of_ave(published_ave, tmp_path_factory):
    """The export of all 4,143 rows; a feature is one number, the row, so that it is quick."""
    folder = tmp_path_factory.mktemp("ave")
    spec = factory.spec("vggish", (1,))
    store = factory.FeatureStore.create(folder / "S", published_ave, [spec])
    for block, span in store.blocks(spec.key):
        writer = store.writer(spec.key, block)
        for row in span:
            writer.put(row, np.full((10, 1), row, "float32"), spec.grid.segments(10.0))
        writer.commit()
    published_ave.save(folder / "M.parquet")
    assert export(folder, "ave-h5") == 0
    return folder / "out"


def test_ave_labels_and_orders_equal_the_published_files_cell_by_cell(all_of_ave):
    out = all_of_ave
    published = ["labels.h5", "mil_labels.h5", "labels_closs.h5"]
    orders = [f"{split}_order{match}.h5" for split in ("train", "val", "test") for match in ("", "_match")]
    for name, key in [*((name, "avadataset") for name in published), *((name, "order") for name in orders)]:
        with h5py.File(DATA / "ave" / name) as file:
            wanted = file[key][:]
        found = h5(out / name, key)
        assert found.dtype == wanted.dtype, name
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    digest = hashlib.sha256(h5(out / "labels.h5").tobytes()).hexdigest()
    assert digest == "dde9fedf15bd95c5fd5e9b73a622b851078018dcefce483723c42ae65ee1c160"
    np.testing.assert_array_equal(h5(out / "audio_feature.h5")[:, 0, 0], np.arange(4143))
    notes = json.loads((out / "export.json").read_text())["notes"]
    assert not any("402" in note or "mod 16" in note for note in notes)


def test_both_rows_of_a_repeated_ave_video_hold_their_own_annotation(all_of_ave):
    """Expected values are read from the lines of the published file, not from the manifest."""
    lines = [line.split("&") for line in (DATA / "ave" / "Annotations.txt").read_text().splitlines()]
    lines = [line for line in lines if line[1] != "VideoID"]
    rows_of = {}
    for row, line in enumerate(lines):
        rows_of.setdefault(line[1], []).append(row)
    repeated = [row for rows in rows_of.values() if len(rows) > 1 for row in rows]
    assert len(lines) == 4143
    assert sum(len(rows) - 1 for rows in rows_of.values()) == 46
    classes = list(dict.fromkeys(line[0] for line in lines))
    labels, audio = h5(all_of_ave / "labels.h5"), h5(all_of_ave / "audio_feature.h5")
    for row in repeated:
        category, _, _, start_s, end_s = lines[row]
        expected = np.full(10, len(classes))
        expected[int(start_s) : int(end_s)] = classes.index(category)
        np.testing.assert_array_equal(labels[row].argmax(axis=1), expected, err_msg=str(lines[row]))
        assert (audio[row] == row).all()
    placed = np.concatenate([h5(all_of_ave / f"{split}_order.h5", "order") for split in ("train", "val", "test")])
    assert np.isin(repeated, placed).all()
    assert len(np.unique(placed)) == len(placed) == 4143


def test_a_subset_keeps_the_published_order_of_its_own_rows(published_ave):
    """Row numbers of the whole list would name other clips of a manifest with the test clips alone."""
    subset = _keep_splits(published_ave, ["test"])
    expected = [published_ave.ids[row] for row in published_ave.facts["orders"]["test"]]
    assert [subset.ids[row] for row in subset.facts["orders"]["test"]] == expected
    assert subset.facts["orders"]["train"] == []
    assert subset.facts["rows_of_repeated_videos"] == len(subset) - len({clip.source_id for clip in subset.clips})
    assert set(subset.facts["zero_length_events"]) <= set(subset.ids)


def test_orders_of_another_manifest_are_not_written(tmp_path, published_ave):
    stale = dataclasses.replace(
        _keep_splits(published_ave, ["test"]), facts=published_ave.facts
    )  # as earlier versions left them
    write_orders(tmp_path, stale, list(range(len(stale))), Export())
    assert h5(tmp_path / "test_order.h5", "order").tolist() == list(range(402))
    assert len(h5(tmp_path / "train_order.h5", "order")) == 0
