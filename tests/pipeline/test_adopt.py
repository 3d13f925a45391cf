import h5py
import numpy as np
import pytest

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
