"""llp-npy: one file per video id, and the pseudo-labels where each peer looks for them."""

import json

import numpy as np
import pytest

from pipeline.datasets.description import load as describe
from pipeline.labels import Labelling, Scoring, create
from pipeline.manifest import Clip, Event, Manifest
from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import export

VGGISH = factory.spec("vggish", (128,), recipe="llp2020")
RESNET = factory.spec("resnet152", (2048,), recipe="llp2020", modality="visual", count=80, window_s=0.125)
R2PLUS1D = factory.spec("r2plus1d", (512,), recipe="llp2020", modality="visual")


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


def test_a_role_that_another_recipe_plays_is_pointed_out(parsed, capsys):
    assert export(parsed, "llp-npy") == 0
    assert "come from" not in capsys.readouterr().err
    clap = factory.spec("clap", (512,), recipe="valor2023")
    factory.fill(factory.FeatureStore.create(parsed / "S", llp_manifest(), [clap]), llp_manifest(), clap.key)
    assert export(parsed, "llp-npy", out="other") == 0
    assert "clap_audioset is clap:valor2023, while the published files come from clap:lsld2023" in (
        capsys.readouterr().err
    )


def test_a_path_that_misleads_valor_is_pointed_out(parsed, capsys):
    assert export(parsed, "llp-npy", out="my_CLIP_runs") == 0
    assert "VALOR and MM-CSE take 768-wide inputs" in capsys.readouterr().err


def test_pseudo_labels_go_to_every_peer_and_a_clip_without_is_reported(parsed):
    """Labels written through the label store's own interface; VALOR opens them for all splits, LSLD for train."""
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
