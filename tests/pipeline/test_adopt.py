import json

import h5py
import numpy as np
import pytest
from distributed import LocalCluster

from pipeline import cluster
from pipeline.adopt import main
from pipeline.compare import main as compare
from pipeline.export import main as export
from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(8)
AUDIO = factory.spec("vggish", (6,))
VISUAL = factory.spec("vgg19", (7, 7, 2), modality="visual")


def adopt(folder, layout, source, *more, out="A"):
    options = [
        "--manifest",
        folder / "M.parquet",
        "--format",
        layout,
        "--from",
        folder / source,
        "--store",
        folder / out,
    ]
    return main([*map(str, options), *more])


@pytest.fixture
def exported(tmp_path):
    DEMO.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", DEMO, [AUDIO, VISUAL], absent={2})
    options = [
        "--manifest",
        tmp_path / "M.parquet",
        "--store",
        tmp_path / "S",
        "--format",
        "ave-h5",
        "--out",
        tmp_path / "X",
    ]
    assert export([str(option) for option in options]) == 0
    return tmp_path


def test_an_ave_export_comes_back_with_its_rows_and_its_gaps(exported, capsys):
    assert adopt(exported, "ave-h5", "X", "--origin", "https://example.org/features") == 0
    store = FeatureStore.open(exported / "A")
    key = store.key("vggish:published")
    assert store.verify() == []
    assert store.outcomes(key)[DEMO.ids[2]] == "absent"
    np.testing.assert_array_equal(store.read(DEMO.ids[7], key), factory.rows_of(AUDIO, 7, 10))
    np.testing.assert_array_equal(store.times(DEMO.ids[7], key), AUDIO.grid.segments(10.0))
    assert "from https://example.org/features" in store.spec(key).preprocess
    assert compare([str(exported / "S"), str(exported / "A"), "--at-least", "1"]) == 0


def test_the_key_follows_the_files_and_their_origin(exported):
    assert adopt(exported, "ave-h5", "X") == 0
    with h5py.File(exported / "X" / "audio_feature.h5", "r+") as file:
        file["avadataset"][0, 0, 0] = 5.0
    assert adopt(exported, "ave-h5", "X", out="B") == 0
    assert adopt(exported, "ave-h5", "X", "--origin", "elsewhere", out="C") == 0
    keys = [FeatureStore.open(exported / name).key("vggish:published") for name in "ABC"]
    assert len(set(keys)) == 3


def test_files_that_do_not_fit_are_refused(exported, capsys):
    factory.manifest(7).save(exported / "M.parquet")
    with pytest.raises(SystemExit):
        adopt(exported, "ave-h5", "X")
    assert "8 rows, the manifest has 7 clips" in capsys.readouterr().err
    DEMO.save(exported / "M.parquet")
    with h5py.File(exported / "X" / "audio_feature.h5", "r+") as file:
        file["avadataset"][0, 0, 0] = 0.1  # not a float32
    with pytest.raises(SystemExit):
        adopt(exported, "ave-h5", "X", out="B")
    assert "pass --dtype float64" in capsys.readouterr().err
    assert adopt(exported, "ave-h5", "X", "--dtype", "float64", out="C") == 0
    with pytest.raises(SystemExit):
        adopt(exported, "llp-npy", "X", out="D")
    assert "no feature file of the layout llp-npy" in capsys.readouterr().err


def test_llp_folders_are_read_by_video_id_and_bad_files_are_counted(tmp_path, capsys):
    clips = tuple(Clip(f"abcdefghij{i}_10_20", f"abcdefghij{i}", 10.0, 10.0) for i in range(4))
    Manifest("llp", clips).save(tmp_path / "M.parquet")
    rng = np.random.default_rng(0)
    values = {}
    for folder, shape in [("vggish", (10, 128)), ("res152", (80, 2048))]:
        (tmp_path / "P/data/feats" / folder).mkdir(parents=True)
        for i in range(3):
            values[folder, i] = rng.random(shape, dtype="float32")
            np.save(tmp_path / "P/data/feats" / folder / f"abcdefghij{i}.npy", values[folder, i])
    np.save(tmp_path / "P/data/feats/vggish/abcdefghij1.npy", np.zeros((9, 128), "float32"))
    (tmp_path / "P/data/feats/vggish/abcdefghij2.npy").write_bytes(b"\x93NUMPY\x01\x00torn")
    assert adopt(tmp_path, "llp-npy", "P", "--max-failed", "2") == 3
    store = FeatureStore.open(tmp_path / "A")
    outcomes = list(store.outcomes(store.key("vggish:published")).values())
    assert outcomes == ["ok", "decode-error", "decode-error", "absent"]
    key = store.key("resnet152:published")
    np.testing.assert_array_equal(store.read(clips[2].id, key), values["res152", 2])
    np.testing.assert_allclose(store.times(clips[2].id, key)[:2], [[0, 0.125], [0.125, 0.25]])


def test_unav_files_of_any_length_are_read_with_the_loaders_times(tmp_path):
    clips = tuple(Clip(f"abcdefghij{i}", f"abcdefghij{i}", None, duration) for i, duration in enumerate((10.0, 36.8)))
    Manifest("unav100", clips).save(tmp_path / "M.parquet")
    (tmp_path / "P").mkdir()
    for clip, rows in zip(clips, (29, 112), strict=True):
        for kind, width in [("rgb", 16), ("flow", 16), ("vggish", 8)]:
            np.save(tmp_path / "P" / f"{clip.id}_{kind}.npy", np.full((rows, width), rows, "float32"))
    assert adopt(tmp_path, "unav-npy", "P") == 0
    store = FeatureStore.open(tmp_path / "A")
    assert [store.spec(key).encoder for key in store] == ["i3d-flow", "i3d-rgb", "vggish"]
    key = store.key("vggish:published")
    assert store.read(clips[1].id, key).shape == (112, 8)
    # the loader: feature t stands for the window around (t * 8 + 24 / 2) / 25 s
    np.testing.assert_allclose(store.times(clips[0].id, key).mean(axis=1), (np.arange(29) * 8 + 12) / 25)


def unav_files(folder, clips, rows):
    Manifest("unav100", clips, ("cat",)).save(folder / "M.parquet")
    (folder / "P").mkdir()
    rng = np.random.default_rng(0)
    files = {}
    for clip, count in zip(clips, rows, strict=True):
        for kind, width in [("rgb", 16), ("flow", 16), ("vggish", 8)]:
            files[clip.id, kind] = rng.random((count, width), dtype="float32")
            np.save(folder / "P" / f"{clip.id}_{kind}.npy", files[clip.id, kind])
    return files


def test_files_longer_than_the_manifest_says_are_cut_and_counted(tmp_path, capsys):
    clips = tuple(Clip(f"abcdefghij{i}", f"abcdefghij{i}", None, 10.0) for i in range(3))
    files = unav_files(tmp_path, clips, (29, 40, 31))
    assert adopt(tmp_path, "unav-npy", "P", "--receipt", str(tmp_path / "R.json"), "--max-failed", "0") == 0
    store = FeatureStore.open(tmp_path / "A")
    key = store.key("i3d-rgb:published")
    for clip in clips:
        np.testing.assert_array_equal(store.read(clip.id, key), files[clip.id, "rgb"][:29])
    assert set(store.notes(key)) == {clips[1].id, clips[2].id}
    assert store.notes(key)[clips[1].id] == "40 rows in the file, 29 fit into the manifest's length"
    assert store.reasons(key) == {}
    assert store.verify() == []
    assert f"{key}: 2 clips cut to the manifest's length" in capsys.readouterr().out
    assert json.loads((tmp_path / "R.json").read_text())["features"][key]["cut"] == 2


def test_adopted_unav_features_are_exported_again_without_naming_them(tmp_path):
    clips = tuple(Clip(f"abcdefghij{i}", f"abcdefghij{i}", None, 10.0, "train") for i in range(2))
    files = unav_files(tmp_path, clips, (29, 29))
    assert adopt(tmp_path, "unav-npy", "P") == 0
    options = ["--manifest", tmp_path / "M.parquet", "--store", tmp_path / "A", "--format", "unav-npy"]
    assert export([str(option) for option in [*options, "--out", tmp_path / "X"]]) == 0
    for (clip_id, kind), values in files.items():
        written = np.load(tmp_path / f"X/data/unav_100/av_features/{clip_id}_{kind}.npy")
        np.testing.assert_array_equal(written, values)


@pytest.mark.parametrize("layout", ["ave-h5", "unav-npy"])
def test_dask_workers_give_the_same_store(exported, monkeypatch, layout):
    monkeypatch.setattr(cluster, "_GROUP_BYTES", 500)
    if layout == "unav-npy":
        unav_files(
            exported, tuple(Clip(f"abcdefghij{i}", f"abcdefghij{i}", None, 10.0) for i in range(9)), range(25, 34)
        )
        (exported / "P/abcdefghij4_rgb.npy").unlink()
    source = {"ave-h5": "X", "unav-npy": "P"}[layout]
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as made:
        assert adopt(exported, layout, source, "--job-clips", "4", "--scheduler", made.scheduler_address, out="A") == 0
    assert adopt(exported, layout, source, "--job-clips", "4", out="B") == 0
    first, second = (
        {
            path.relative_to(exported / name): path.read_bytes()
            for path in (exported / name).rglob("*")
            if path.is_file()
        }
        for name in "AB"
    )
    assert first == second
