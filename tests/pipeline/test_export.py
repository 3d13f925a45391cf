import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from distributed import LocalCluster

from pipeline import cluster
from pipeline.datasets import ave, llp
from pipeline.datasets.description import load as describe
from pipeline.export import main
from pipeline.manifest import Clip, Event, Manifest
from tests.pipeline import store_factory as factory

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
DEMO = factory.manifest(10)
VISUAL = factory.spec("vgg19", (7, 7, 8), modality="visual")
AUDIO = factory.spec("vggish", (6,))


@pytest.fixture
def made(tmp_path):
    """A store of ten clips in which clip 3 has no audio."""
    DEMO.save(tmp_path / "M.parquet")
    store = factory.store(tmp_path / "S", DEMO, [VISUAL], job_clips=4)
    store = factory.FeatureStore.create(tmp_path / "S", DEMO, [AUDIO], job_clips=4)
    factory.fill(store, DEMO, AUDIO.key, absent={3})
    return tmp_path


def export(folder, layout, *more, out="out"):
    options = ["--manifest", folder / "M.parquet", "--store", folder / "S", "--format", layout, "--out", folder / out]
    return main([str(option) for option in [*options, *more]])


def h5(path, key="avadataset"):
    with h5py.File(path) as file:
        assert list(file) == [key]
        data = file[key]
        assert data.chunks is None
        assert data.compression is None
        assert len(data.attrs) == 0
        return data[:]


# ---- ave-h5 ----------------------------------------------------------------------------------------------------------


def test_ave_h5_keeps_rows_in_order_and_a_missing_clip_is_a_row_of_zeros(made, capsys):
    assert export(made, "ave-h5") == 0
    out = made / "out"
    visual, audio = h5(out / "visual_feature.h5"), h5(out / "audio_feature.h5")
    assert visual.dtype == audio.dtype == np.float64
    assert visual.shape == (10, 10, 7, 7, 8)
    for row in range(10):
        np.testing.assert_array_equal(visual[row], factory.rows_of(VISUAL, row, 10))
        expected = np.zeros((10, 6)) if row == 3 else factory.rows_of(AUDIO, row, 10)
        np.testing.assert_array_equal(audio[row], expected)
    np.testing.assert_allclose(h5(out / "visual_feature_vec.h5"), visual.mean(axis=(2, 3)))
    assert h5(out / "train_order.h5", "order").tolist() == [0, 1, 2, 5, 6, 7]
    assert h5(out / "labels_closs.h5")[1].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_array_equal(h5(out / "labels.h5").sum(axis=2), 1)
    np.testing.assert_allclose(h5(out / "prob_label.h5")[1], [0, 0.5, 0, 0.5], rtol=1e-6)
    (gap,) = json.loads((out / "missing.json").read_text())["rows"]
    assert (gap["row"], gap["feature"], gap["outcome"]) == (3, "audio", "absent")
    said = capsys.readouterr()
    assert "1 clips without features, kept as empty rows" in said.out
    assert "need at least 402 rows in test_order.h5, it has 2" in said.err
    assert "no *_order_match split" in said.err


def test_ave_h5_renumbers_all_files_together(made):
    assert export(made, "ave-h5", "--missing", "renumber", "--dtype", "float32") == 0
    out = made / "out"
    rows = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    audio, labels = h5(out / "audio_feature.h5"), h5(out / "labels.h5")
    assert len(audio) == len(labels) == len(h5(out / "visual_feature.h5")) == 9
    assert audio.dtype == np.float32
    for name in ("train", "val", "test"):
        order = h5(out / f"{name}_order.h5", "order")
        assert order.dtype == np.int64
        kept = [row for row in rows if DEMO.clips[row].split == name]
        assert [rows[new] for new in order] == kept
        for new, row in zip(order, kept, strict=True):
            np.testing.assert_array_equal(audio[new], factory.rows_of(AUDIO, row, 10))
            assert labels[new].argmax(axis=1)[row % 4] == row % 3
    record = json.loads((out / "export.json").read_text())
    assert any("CMRAN, CMBS" in note and "float32" in note for note in record["notes"])
    assert json.loads((out / "missing.json").read_text())["dropped"] == [DEMO.ids[3]]


def test_ave_h5_writes_the_background_set_when_given(made):
    noisy = Manifest("ave-noisy", tuple(Clip(f"n{i}", f"n{i}", None, 10.0) for i in range(4)))
    noisy.save(made / "N.parquet")
    factory.store(made / "NS", noisy, [VISUAL, AUDIO], absent={2})
    background = ["--background-manifest", made / "N.parquet", "--background-store", made / "NS"]
    assert export(made, "ave-h5", *background) == 0
    labels = h5(made / "out" / "labels_noisy.h5")
    assert labels.tolist() == [[0, 0, 0, 1]] * 3
    np.testing.assert_array_equal(h5(made / "out" / "audio_feature_noisy.h5")[2], factory.rows_of(AUDIO, 3, 10))
    assert h5(made / "out" / "visual_feature_noisy.h5").shape == (3, 10, 7, 7, 8)


def test_the_same_inputs_give_the_same_bytes_and_another_folder_is_never_touched(made, capsys):
    assert export(made, "ave-h5", out="one") == 0
    assert export(made, "ave-h5", out="two") == 0
    for path in (made / "one").iterdir():
        assert path.read_bytes() == (made / "two" / path.name).read_bytes(), path.name
    (made / "thesis").mkdir()
    (made / "thesis" / "chapter.tex").write_text("mine")
    for out, more, message in [
        ("thesis", ["--overwrite"], "not made by this command"),
        ("one", [], "--overwrite replaces"),
    ]:
        with pytest.raises(SystemExit):
            export(made, "ave-h5", *more, out=out)
        assert message in capsys.readouterr().err
    assert (made / "thesis" / "chapter.tex").read_text() == "mine"
    (made / "one" / "labels.h5").unlink()
    assert export(made, "ave-h5", "--overwrite", out="one") == 0
    assert (made / "one" / "labels.h5").exists()
    assert not list(made.glob("*.partial")) + list(made.glob(".*.partial"))


def test_an_export_that_breaks_leaves_the_earlier_one(made):
    assert export(made, "ave-h5") == 0
    before = {path.name: path.read_bytes() for path in (made / "out").iterdir()}
    shard = made / "S" / AUDIO.key / "values/c/2/0/0"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--overwrite")
    assert {path.name: path.read_bytes() for path in (made / "out").iterdir()} == before
    assert not list(made.glob(".*.partial"))


def test_features_are_chosen_by_name_and_a_wrong_one_is_refused(made, capsys):
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--feature", "sound=vggish:ave2018")
    assert "has the roles visual, audio" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--feature", "audio=cnn14")
    assert "no single feature called 'cnn14'" in capsys.readouterr().err
    assert export(made, "ave-h5", "--max-missing", "0") == 3


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


# ---- llp-npy ---------------------------------------------------------------------------------------------------------


def llp_manifest(count=9):
    classes = llp_classes()
    clips = []
    for row in range(count):
        split = ("train", "train", "val", "test")[row % 4]
        events = (
            () if split == "train" else (Event(classes[row], "audio", 0, 4), Event(classes[row + 1], "visual", 2, 9))
        )
        start = 101.8 if row == 0 else row * 10
        name = f"abc_efghij{row}_{start:g}_{start + 10:g}"
        clips.append(Clip(name, name[:11], start, 10.0, split, (classes[row], classes[row + 1]), events))
    return Manifest("llp", tuple(clips), classes)


def llp_classes():
    return describe("llp").classes


VGGISH = factory.spec("vggish", (128,), recipe="llp2020")
RESNET = factory.spec("resnet152", (2048,), recipe="llp2020", modality="visual", count=80, window_s=0.125)
R2PLUS1D = factory.spec("r2plus1d", (512,), recipe="llp2020", modality="visual")


@pytest.fixture
def parsed(tmp_path):
    made = llp_manifest()
    made.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", made, [VGGISH, RESNET, R2PLUS1D], absent={2})
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_llp_npy_writes_one_float32_file_per_video_id(parsed, workers):
    assert export(parsed, "llp-npy", "--workers", str(workers)) == 0
    out = parsed / "out" / "data"
    for folder, spec, shape in [
        ("feats/vggish", VGGISH, (10, 128)),
        ("feats/res152", RESNET, (80, 2048)),
        ("feats/r2plus1d_18", R2PLUS1D, (10, 512)),
        ("r2plus1d_18", R2PLUS1D, (10, 512)),
    ]:
        assert len(list((out / folder).iterdir())) == 9
        for row in range(9):
            values = np.load(out / folder / f"abc_efghij{row}.npy")
            assert values.dtype == np.float32
            assert values.shape == shape
            expected = np.zeros(shape) if row == 2 else factory.rows_of(spec, row, shape[0])
            np.testing.assert_array_equal(values, expected)


def test_llp_npy_renumber_shortens_the_lists_and_leaves_the_events(parsed):
    assert export(parsed, "llp-npy", "--missing", "renumber") == 0
    data = parsed / "out" / "data"
    assert not (data / "feats/vggish/abc_efghij2.npy").exists()
    assert (data / "AVVP_val_pd.csv").read_text().splitlines() == [
        "filename\tevent_labels",
        "abc_efghij6_60_70\tBasketball_bounce,Fire_alarm",
    ]
    assert (data / "AVVP_eval_audio.csv").read_text().splitlines()[:2] == [
        "filename\tonset\toffset\tevent_labels",
        "abc_efghij6_60_70\t0\t4\tBasketball_bounce",
    ]
    assert (
        (data / "AVVP_train.csv")
        .read_text()
        .startswith("filename\tevent_labels\nabc_efghij0_101.8_111.8\tSpeech,Car\n")
    )


def test_llp_lists_written_from_the_manifest_equal_the_published_ones(tmp_path):
    """Except one row with a repeated label, and the evaluation rows that every evaluator ignores."""
    if not (DATA / "llp" / "AVVP_train.csv").exists():
        pytest.skip("the public LLP annotation files are not beside the project")
    from pipeline.exporting.llp_lists import write_lists
    from pipeline.exporting.request import Export, Request

    made = llp.read(describe("llp"), DATA / "llp")
    everything = list(range(len(made)))
    write_lists(Request(made, None, tmp_path), tmp_path / "data", everything, Export())
    for name in ("AVVP_train.csv", "AVVP_val_pd.csv"):
        assert (tmp_path / "data" / name).read_bytes() == (DATA / "llp" / name).read_bytes()
    written = (tmp_path / "data" / "AVVP_test_pd.csv").read_text().splitlines()
    published = (DATA / "llp" / "AVVP_test_pd.csv").read_text().splitlines()
    different = [(a, b) for a, b in zip(written, published, strict=True) if a != b]
    assert different == [("LcFWKgFphXI_20_30\tClapping", "LcFWKgFphXI_20_30\tClapping,Clapping")]
    for name, ignored, inverted in [("AVVP_eval_visual.csv", 11, 0), ("AVVP_eval_audio.csv", 14, 1)]:
        rows = sorted((tmp_path / "data" / name).read_text().splitlines())
        wanted = sorted((DATA / "llp" / name).read_text().splitlines())
        assert len(wanted) - len(rows) == ignored + inverted
        assert set(rows) <= set(wanted)
    write_lists(Request(made, None, tmp_path, annotations=DATA / "llp"), tmp_path / "data", everything, Export())
    for path in (tmp_path / "data").iterdir():
        assert path.read_bytes() == (DATA / "llp" / path.name).read_bytes()


def test_llp_npy_refuses_ids_that_would_share_a_file(tmp_path, capsys):
    clips = tuple(Clip(f"same-video0_{start}_{start + 10}", "same-video0", start, 10.0) for start in (0, 10))
    twice = Manifest("llp", clips, llp_classes())
    twice.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", twice, [VGGISH])
    with pytest.raises(SystemExit):
        export(tmp_path, "llp-npy")
    assert "would share same-video0.npy" in capsys.readouterr().err


def test_adopted_features_take_the_roles_of_their_encoders(tmp_path):
    """A CLAP map is one row of (64, 768) in a store and 64 rows in the layout."""
    made = llp_manifest()
    made.save(tmp_path / "M.parquet")
    clap = factory.spec("clap-map", (64, 768), recipe="published", count=1, window_s=10.0)
    factory.store(tmp_path / "S", made, [clap])
    assert export(tmp_path, "llp-npy") == 0
    values = np.load(tmp_path / "out/data/CLAP/features/abc_efghij1.npy")
    np.testing.assert_array_equal(values, factory.rows_of(clap, 1, 1)[0])


def test_a_path_that_misleads_valor_is_pointed_out(parsed, capsys):
    assert export(parsed, "llp-npy", out="my_CLIP_runs") == 0
    assert "VALOR and MM-CSE take 768-wide inputs" in capsys.readouterr().err


def test_pseudo_labels_go_to_every_peer_and_a_clip_without_is_reported(parsed):
    """Labels written through the label store's own interface; VALOR opens them for all splits, LSLD for train."""
    from pipeline.labels import Labelling, Scoring, create

    made, rng = llp_manifest(), np.random.default_rng(0)
    wanted = {}
    for modality, teacher in (("visual", R2PLUS1D), ("audio", VGGISH)):
        scoring = Scoring(modality, teacher, made.classes, made.classes, 1.0)
        labelling = Labelling(scoring.spec.key, "valor2023", (0.0,) * 25, "video-label")
        spec = labelling.spec(scoring)
        store = create(parsed / "L", made, [(scoring, np.zeros((25, 4)))], [(labelling, scoring)])
        writer = store.writer(spec.key, 0)
        for row in range(9):
            wanted[modality, row] = rng.integers(0, 2, (10, 25)).astype("uint8")
            if row == 5:
                writer.fail(row, "no-audio", "silent film")
            else:
                writer.put(row, wanted[modality, row], spec.grid.segments(10.0))
        writer.commit()
    assert export(parsed, "llp-npy", "--labels", str(parsed / "L")) == 0
    data = parsed / "out" / "data"
    for folder, modality in [
        ("CLIP/segment_pseudo_labels", "visual"),
        ("CLAP/segment_pseudo_labels", "audio"),
        ("feats_CLIP_large/framewise_pseudo_labels", "visual"),
        ("feats_CLAP_new/framewise_pseudo_labels", "audio"),
    ]:
        for row in range(9):
            values = np.load(data / folder / f"abc_efghij{row}.npy")
            assert values.dtype == np.int64
            np.testing.assert_array_equal(values, 0 if row == 5 else wanted[modality, row])
    archive = np.load(parsed / "out/refine_label/final_label.npz", allow_pickle=True)["label_a"].item()
    assert sorted(archive) == [f"abc_efghij{row}" for row in (0, 1, 4, 5, 8)]
    np.testing.assert_array_equal(archive["abc_efghij4"].numpy(), wanted["audio", 4])
    missing = json.loads((parsed / "out/missing.json").read_text())["rows"]
    assert {entry["feature"] for entry in missing if entry["row"] == 5} == {"visual labels", "audio labels"}
    assert export(parsed, "llp-npy", "--labels", str(parsed / "L"), "--missing", "renumber", out="short") == 0
    dropped = json.loads((parsed / "short/missing.json").read_text())["dropped"]
    assert dropped == [made.ids[2], made.ids[5]]  # without features; for training, without labels
    assert not (parsed / "short/data/CLIP/segment_pseudo_labels/abc_efghij5.npy").exists()


# ---- unav-npy --------------------------------------------------------------------------------------------------------


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


def test_the_unav_json_equals_the_published_one(tmp_path):
    if not (DATA / "unav100" / "unav100_annotations.json").exists():
        pytest.skip("the public UnAV-100 annotation file is not beside the project")
    from pipeline.datasets import unav100
    from pipeline.exporting.unav_npy import annotations

    made = unav100.read(describe("unav100"), DATA / "unav100")
    published = json.loads((DATA / "unav100" / "unav100_annotations.json").read_text())
    assert annotations(made, list(range(len(made)))) == published


# ---- hdf5 and webdataset ---------------------------------------------------------------------------------------------


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


def test_hdf5_check_names_a_block_file_that_is_gone(made):
    from pipeline.exporting.hdf5 import check

    assert export(made, "hdf5") == 0
    store = factory.FeatureStore.open(made / "S")
    assert check(made / "out" / "ave.h5", store) == []
    (made / "out" / "blocks" / AUDIO.key / "000001.h5").unlink()
    (problem,) = check(made / "out" / "ave.h5", store)
    assert "000001.h5 is missing" in problem


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as made_here:
        yield made_here.scheduler_address


@pytest.mark.parametrize("layout", ["ave-h5", "webdataset"])
def test_dask_workers_give_the_same_bytes(made, monkeypatch, scheduler, layout):
    monkeypatch.setattr(cluster, "_GROUP_BYTES", 40_000)  # a few clips at a time
    assert export(made, layout, out="here") == 0
    assert export(made, layout, "--scheduler", scheduler, out="there") == 0
    names = sorted(path.name for path in (made / "here").iterdir())
    assert names == sorted(path.name for path in (made / "there").iterdir())
    for name in names:
        assert (made / "here" / name).read_bytes() == (made / "there" / name).read_bytes(), name


def test_webdataset_round_trips_and_is_deterministic(made):
    import io

    import webdataset

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


# ---- dgsct -----------------------------------------------------------------------------------------------------------


def test_dgsct_writes_ten_frames_and_ten_seconds_for_every_video(tmp_path, capsys):
    from PIL import Image

    clip = DATA / "clips" / "BjCEufrlXm4.mp4"
    if not clip.exists():
        pytest.skip("the public sample clips are not beside the project")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "BjCEufrlXm4.mp4").symlink_to(clip)
    ids = ["BjCEufrlXm4", "BjCEufrlXm4", "absentvideo"]
    events = [Event(label, "both", 2, 5) for label in ("Bell", "Dog", "Cat")]
    clips = [Clip(f"{i}_{ids[i]}", ids[i], None, 10.0, "train", (e.label,), (e,)) for i, e in enumerate(events)]
    Manifest("ave", tuple(clips), ("Bell", "Dog", "Cat")).save(tmp_path / "M.parquet")
    options = ["--manifest", tmp_path / "M.parquet", "--media", tmp_path / "media", "--format", "dgsct"]
    assert main([str(option) for option in [*options, "--out", tmp_path / "out"]]) == 0
    root = tmp_path / "out/data/AVE"
    assert sorted(path.name for path in (root / "frames").iterdir()) == ["BjCEufrlXm4", "absentvideo"]
    frames = sorted((root / "frames" / "BjCEufrlXm4").iterdir())
    assert [path.name for path in frames] == [f"{number:08d}.jpg" for number in range(1, 11)]
    assert Image.open(frames[0]).size == (320, 240)
    wave = np.load(root / "wave" / "BjCEufrlXm4.npy")
    assert (wave.shape, wave.dtype) == ((320_000,), np.float32)
    assert 0.01 < np.abs(wave).max() <= 1
    assert not np.load(root / "wave" / "absentvideo.npy").any()
    assert (root / "Annotations.txt").read_text().splitlines() == [
        "Category&VideoID&Quality&StartTime&EndTime",
        "Bell&BjCEufrlXm4&good&2&5",
        "Dog&BjCEufrlXm4&good&2&5",
        "Cat&absentvideo&good&2&5",
    ]
    assert h5(root / "mil_labels.h5").argmax(axis=1).tolist() == [0, 1, 2]
    notes = json.loads((tmp_path / "out/export.json").read_text())["notes"]
    assert notes == ["clips without media are black frames and silence"]  # none of ave-h5's peers
    assert main([str(option) for option in [*options, "--out", tmp_path / "less", "--missing", "renumber"]]) == 0
    assert not (tmp_path / "less/data/AVE/wave/absentvideo.npy").exists()
    assert len(h5(tmp_path / "less/data/AVE/labels.h5")) == 2
