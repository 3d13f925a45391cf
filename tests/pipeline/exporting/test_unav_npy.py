"""unav-npy: the flat folder of features and the annotation file."""

import json

import numpy as np
import pytest

from pipeline.datasets import unav100
from pipeline.datasets.description import load as describe
from pipeline.exporting.unav_npy import annotations
from pipeline.manifest import Clip, Event, Manifest
from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import export
from tests.real_data import FOLDER as DATA


def unav_manifest():
    events = (Event("dog", "both", 0.5, 3.25), Event("cat", "both", 1.0, 2.0))
    clips = [Clip(f"abcdefghij{i}", f"abcdefghij{i}", None, 10.0 + i, split, ("dog",), events) for i, split in
             enumerate(("train", "val", "test"))]  # fmt: skip
    return Manifest("unav100", tuple(clips), ("cat", "dog"))


def test_unav_npy_writes_the_flat_folder_and_the_json(tmp_path):
    made = unav_manifest()
    made.save(tmp_path / "M.parquet")
    rgb = factory.spec("i3d-rgb", (16,), recipe="unav2023", count=None, modality="visual")
    flow = factory.spec("i3d-flow", (16,), recipe="unav2023", count=None, modality="visual")
    vggish = factory.spec("vggish", (8,), recipe="unav2023", count=None, window_s=0.5)
    store = factory.store(tmp_path / "S", made, [rgb, vggish], absent={1})
    store = factory.FeatureStore.create(tmp_path / "S", made, [flow])
    writer = store.writer(flow.key, 0)
    for row, count in enumerate((10, 11, 11)):  # one row short of rgb for clip 2
        writer.put(row, factory.rows_of(flow, row, count), flow.grid.segments(float(count)))
    writer.commit()
    assert export(tmp_path, "unav-npy", "--missing", "renumber") == 0
    folder = tmp_path / "out/data/unav_100"
    names = sorted(path.name for path in (folder / "av_features").iterdir())
    assert names == [f"abcdefghij{i}_{kind}.npy" for i in (0, 2) for kind in ("flow", "rgb", "vggish")]
    assert np.load(folder / "av_features/abcdefghij2_rgb.npy").shape == (11, 16)
    assert np.load(folder / "av_features/abcdefghij2_vggish.npy").dtype == np.float32
    np.testing.assert_array_equal(
        np.load(folder / "av_features/abcdefghij0_vggish.npy"), factory.rows_of(vggish, 0, 20)
    )
    database = json.loads((folder / "annotations/unav100_annotations.json").read_text())["database"]
    assert database["abcdefghij2"] == {
        "duration": 12.0,
        "subset": "test",
        "annotations": [
            {"segment": [0.5, 3.25], "label": "dog", "label_id": 1},
            {"segment": [1.0, 2.0], "label": "cat", "label_id": 0},
        ],
    }
    assert list(database) == ["abcdefghij0", "abcdefghij2"]
    assert "cut to the shorter" in (tmp_path / "out/export.json").read_text()
    assert export(tmp_path, "unav-npy", out="kept") == 0
    zeros = np.load(tmp_path / "kept/data/unav_100/av_features/abcdefghij1_rgb.npy")
    assert zeros.shape == (11, 16)
    assert not zeros.any()


def test_files_that_a_peer_will_look_for_in_vain_are_named(tmp_path, capsys):
    made = unav_manifest()
    made.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", made, [factory.spec("vggish", (8,), recipe="unav2023", count=None)])
    assert export(tmp_path, "unav-npy") == 0
    shown = capsys.readouterr().err
    assert "UnAV also opens <id>_rgb.npy and <id>_flow.npy, and the store has no such feature" in shown
    assert "CCNet" not in shown


def test_the_unav_json_equals_the_published_one(tmp_path):
    if not (DATA / "unav100" / "unav100_annotations.json").exists():
        pytest.skip("the public UnAV-100 annotation file is not beside the project")
    made = unav100.read(describe("unav100"), DATA / "unav100")
    published = json.loads((DATA / "unav100" / "unav100_annotations.json").read_text())
    assert annotations(made, list(range(len(made)))) == published
