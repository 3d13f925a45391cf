"""The stage end to end on small stores: labels recomputed from the stored arrays by other code, and what goes wrong."""

import dataclasses
import json

import numpy as np
import pytest
import zarr

from extractors import base
from extractors.recipes import recipe
from pipeline import pseudolabel
from pipeline.labels import LabelStore
from pipeline.manifest import Clip, Event, Manifest
from pipeline.store import FeatureStore

CLASSES = ("Dog", "Cat", "Car")
HEADER = "class\tvisual\tvisual_threshold\taudio\taudio_threshold\tsource\tnote\n"
PROMPTS = HEADER + "".join(
    f"{name}\tA photo of a {name}.\t{t}\tThis is a sound of {name}\t{-t}\tours\t\n"
    for name, t in zip(CLASSES, (0.5, -1.0, 0.0), strict=True)
)


def manifest(count=6):
    clips = []
    for row in range(count):
        labels = (CLASSES[row % 3],) if row % 2 else (CLASSES[row % 3], CLASSES[(row + 1) % 3])
        events = (Event(labels[0], "both", 2.0, 6.0),) if row % 3 else ()
        clips.append(
            Clip(f"clip-{row:02d}", f"clip-{row:02d}", None, 10.0, "val" if row % 3 else "train", labels, events)
        )
    return Manifest("demo", tuple(clips), CLASSES)


@pytest.fixture
def folder(tmp_path):
    """A manifest, prompts, and seeded features of two teachers; clip 4 has no sound."""
    made = manifest()
    made.save(tmp_path / "manifest.parquet")
    (tmp_path / "prompts.tsv").write_text(PROMPTS)
    specs = [dataclasses.replace(recipe(name).spec, weights="random:3") for name in ("clip-tiny", "clap-tiny")]
    store = FeatureStore.create(tmp_path / "features", made, specs)
    rng = np.random.default_rng(0)
    for spec in specs:
        writer = store.writer(spec.key, 0)
        for row in range(len(made)):
            if row == 4 and spec.modality == "audio":
                writer.fail(row, "no-audio", "silent film")
            else:
                writer.put(row, rng.normal(size=(10, 64)).astype(np.float32), spec.grid.segments(10.0))
        writer.commit()
    return tmp_path


def run(folder, *flags, teachers=("clip-tiny", "clap-tiny"), out="labels"):
    chosen = [flag for name in teachers for flag in ("--teacher", name)]
    return pseudolabel.main(
        ["--manifest", f"{folder}/manifest.parquet", "--store", f"{folder}/features", *chosen, "--prompts",
         f"{folder}/prompts.tsv", "--out", f"{folder}/{out}", "--receipt", f"{folder}/receipt.json", *flags]
    )  # fmt: skip


def test_labels_can_be_recomputed_from_the_stored_arrays(folder, monkeypatch):
    """By plain zarr and loops, as a reader of the published rule would write it."""
    assert run(folder, "--accept-thresholds") == 0
    receipt = json.loads((folder / "receipt.json").read_text())
    features, labels = zarr.open_group(folder / "features", mode="r"), zarr.open_group(folder / "labels", mode="r")
    clips = manifest().clips
    for modality, sign in (("visual", 1), ("audio", -1)):
        entry = receipt["modalities"][modality]
        rows = features[entry["teacher"]["key"]]["values"][:]
        text, scores = labels[entry["scores"]]["text"][:], labels[entry["scores"]]["values"][:]
        for row, clip in enumerate(clips):
            if modality == "audio" and row == 4:
                assert np.isnan(scores[row]).all()
                continue
            for t in range(10):
                for c, name in enumerate(CLASSES):
                    own, other = rows[row, t].astype(float), text[c].astype(float)
                    logit = entry["scale"] * own @ other / np.linalg.norm(own) / np.linalg.norm(other)
                    assert scores[row, t, c] == pytest.approx(logit, rel=1e-5)
                    fires = logit > sign * (0.5, -1.0, 0.0)[c]
                    for mask in ("none", "video-label"):
                        wanted = fires and (mask == "none" or name in clip.labels)
                        assert labels[entry["labels"][mask]]["values"][row, t, c] == wanted
    text = base.load("clip-tiny", "random:3").encode_text([f"A photo of a {name}." for name in CLASSES])
    np.testing.assert_array_equal(LabelStore.open(folder / "labels").text("visual"), text.numpy())


def test_the_store_reads_back_and_verifies(folder):
    assert run(folder, "--accept-thresholds", "--max-failed", "0") == 3
    store = LabelStore.open(folder / "labels")
    assert store.mask == "video-label"
    assert store.classes == CLASSES
    assert store.labels("clip-01", "audio").dtype == np.uint8
    assert store.labels("clip-01", "audio").shape == (10, 3)
    assert store.scores("clip-01", "visual").shape == (10, 3)
    assert store.outcome("clip-04", "audio") == "no-audio"
    assert not store.has("clip-04", "audio")
    with pytest.raises(ValueError, match="clip-04 has no pseudo-labels: the file has no audio stream"):
        store.read("clip-04", "audio")
    assert FeatureStore.open(folder / "labels").verify() == []
    with pytest.raises(ValueError, match="no labels with mask 'other'"):
        LabelStore.open(folder / "labels", "other")


def test_other_thresholds_need_no_encoder(folder, monkeypatch):
    flags = ("--calibrate", "val", "--write-thresholds", str(folder / "t.json"), "--mask", "none")
    assert run(folder, *flags) == 0
    before = LabelStore.open(folder / "labels").labels("clip-01", "visual")

    def refuse(*arguments, **options):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(base, "load", refuse)
    assert run(folder, "--thresholds", str(folder / "t.json"), "--mask", "none") == 0
    assert np.array_equal(LabelStore.open(folder / "labels").labels("clip-01", "visual"), before)
    assert run(folder, "--accept-thresholds", "--mask", "none") == 0
    with pytest.raises(ValueError, match="no single set of audio labels with mask none"):
        LabelStore.open(folder / "labels")
    found = json.loads((folder / "receipt.json").read_text())["modalities"]
    keys = {modality: entry["labels"]["none"] for modality, entry in found.items()}
    assert LabelStore.open(folder / "labels", keys=keys).thresholds("visual").tolist() == [0.5, -1.0, 0.0]


def test_labels_follow_features_that_were_made_anew(folder):
    flags = ("--accept-thresholds", "--mask", "none")
    assert run(folder, *flags) == 0
    store = FeatureStore.open(folder / "labels")
    keys = json.loads((folder / "receipt.json").read_text())["modalities"]
    keys = {modality: [entry["scores"], entry["labels"]["none"]] for modality, entry in keys.items()}
    commits = {key: store.commit_path(key, 0).stat().st_mtime_ns for made in keys.values() for key in made}
    old = LabelStore.open(folder / "labels").scores("clip-01", "visual")
    assert run(folder, *flags) == 0
    assert all(store.commit_path(key, 0).stat().st_mtime_ns == when for key, when in commits.items())

    features, rng = FeatureStore.create(folder / "features", manifest(), []), np.random.default_rng(9)
    writer = features.writer(features.key("clip-tiny"), 0)
    for row in range(6):
        writer.put(row, rng.normal(size=(10, 64)).astype(np.float32), recipe("clip-tiny").spec.grid.segments(10.0))
    writer.commit()
    assert run(folder, *flags) == 0
    found = LabelStore.open(folder / "labels")
    rows, text = features.read("clip-01", features.key("clip-tiny")), found.text("visual")
    cosine = rows @ text.T / np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(text, axis=1)
    scores = found.scores("clip-01", "visual")
    np.testing.assert_allclose(scores, found.scoring("visual").scale * cosine, rtol=1e-4)
    assert np.abs(scores - old).max() > 1e-2
    np.testing.assert_array_equal(found.read("clip-01", "visual"), scores > found.thresholds("visual"))
    again = {key: store.commit_path(key, 0).stat().st_mtime_ns for key in commits}
    assert all(again[key] == commits[key] for key in keys["audio"]), "nothing of the sound has changed"
    assert all(again[key] > commits[key] for key in keys["visual"])


def test_cosines_of_lsld_are_no_scores_of_valor(folder):
    """In one folder, with the same captions: the second rule needs the teachers' logit scale."""
    thresholds = ("--accept-thresholds",)
    assert run(folder, "--rule", "lsld2023", teachers=("clap-tiny",)) == 0
    assert run(folder, *thresholds) == 0
    assert run(folder, *thresholds, out="alone") == 0
    shared, alone = FeatureStore.open(folder / "labels"), FeatureStore.open(folder / "alone")
    assert set(alone.keys()) < set(shared.keys())
    for key in alone:
        np.testing.assert_array_equal(shared.read("clip-01", key), alone.read("clip-01", key))


def test_lsld_keeps_the_labels_of_the_best_caption(folder):
    lines = [f"{name}\t{name}\t\tThis is a sound of {name}\t\tours\t\n" for name in CLASSES]
    (folder / "prompts.tsv").write_text(HEADER + "".join(lines))
    assert run(folder, "--rule", "lsld2023", teachers=("clap-tiny",)) == 0
    store, encoder = LabelStore.open(folder / "labels"), base.load("clap-tiny", "random:3")
    features = FeatureStore.open(folder / "features")
    rows = features.read("clip-00", features.key("clap-tiny"))
    said = ["Dog and Cat", "Dog", "Cat", "other"]  # clip 0 is Dog, Cat
    text = encoder.encode_text([f"This is a sound of {words}" for words in said]).numpy()
    best = [said[i] for i in (rows / np.linalg.norm(rows, axis=1, keepdims=True) @ text.T).argmax(1)]
    wanted = [[int(name in words) for name in CLASSES] for words in best]
    assert store.labels("clip-00", "audio").tolist() == wanted


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (None, (), "the thresholds of the prompt table are for clip-l14:valor2023, the teacher is clip-tiny"),
        (PROMPTS.rsplit("Car", 3)[0], (), "class 'Car' has no prompt"),
        (PROMPTS + PROMPTS.splitlines()[-1] + "\n", (), "class 'Car' has two prompts"),
        (PROMPTS.replace("\t0.5", "\t"), ("--accept-thresholds",), "visual: no threshold for 1 of 3 classes"),
        (None, ("--calibrate", "train"), "no clip of it has dense labels"),
    ],
)
def test_what_cannot_be_labelled_is_said(folder, capsys, change, flags, message):
    if change is not None:
        (folder / "prompts.tsv").write_text(change)
    with pytest.raises(SystemExit) as stop:
        run(folder, *flags, teachers=("clip-tiny",))
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_thresholds_of_the_test_split_are_told(folder, capsys):
    made = manifest()
    for split, told in (("val", False), ("test", True)):
        clips = tuple(dataclasses.replace(clip, split=split if clip.split == "val" else "train") for clip in made.clips)
        Manifest("demo", clips, CLASSES).save(folder / "manifest.parquet")
        assert run(folder, "--calibrate", split, teachers=("clip-tiny",), out=split) == 0
        assert ("so scores on it test nothing" in capsys.readouterr().err) == told


def test_a_teacher_without_its_weights_is_told(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        run(folder, "--accept-thresholds", teachers=("clip-tiny=none.pt",))
    assert stop.value.code == 1
    assert "nor an existing file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--teacher", "clip-tiny=none.pt"), "give each feature once"),
        (("--job-clips", "0"), "--job-clips 0: at least 1"),
        (("--max-failed", "-1"), "--max-failed -1: at least 0"),
        (("--write-thresholds", "t.json"), "needs --calibrate"),
        (("--rule", "lsld2023", "--mask", "none"), "its mask is video-label"),
        (("--rule", "lsld2023", "--calibrate", "val"), "lsld2023 has no thresholds"),
        (("--rule", "lsld2023", "--accept-thresholds"), "lsld2023 has no thresholds"),
    ],
)
def test_flags_that_cannot_be_meant_are_a_usage_error(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("out", ["features", "features/labels", "labels/../features"])
def test_labels_do_not_go_into_the_feature_store(folder, capsys, out):
    (folder / "labels").mkdir()
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        run(folder, "--accept-thresholds", out=out)
    assert stop.value.code == 2
    assert "labels need a folder of their own" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_thresholds_of_another_teacher_are_refused(folder, capsys):
    flags = ("--calibrate", "val", "--write-thresholds", f"{folder}/t.json")
    assert run(folder, *flags, teachers=("clip-tiny",)) == 0
    found = json.loads((folder / "t.json").read_text())
    found["modalities"]["visual"] |= {"teacher": "clip-tiny.default.random.0000000000", "scores": "others"}
    (folder / "t.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit) as stop:
        run(folder, "--thresholds", f"{folder}/t.json", teachers=("clip-tiny",))
    assert stop.value.code == 1
    assert "the visual thresholds belong to another teacher" in capsys.readouterr().err


def test_two_features_of_one_name_are_told_apart_by_the_teachers_weights(folder, capsys):
    """Fine-tuning puts a second feature beside the teacher's."""
    tuned = dataclasses.replace(recipe("clip-tiny").spec, weights="random:4")
    store = FeatureStore.create(folder / "features", manifest(), [tuned])
    writer = store.writer(tuned.key, 0)
    for row in range(6):
        writer.put(row, np.ones((10, 64), np.float32), tuned.grid.segments(10.0))
    writer.commit()
    with pytest.raises(SystemExit):
        run(folder, "--accept-thresholds", teachers=("clip-tiny",))
    assert "several keys" in capsys.readouterr().err
    assert run(folder, "--accept-thresholds", teachers=("clip-tiny=random:3",)) == 0
    entry = json.loads((folder / "receipt.json").read_text())["modalities"]["visual"]
    assert entry["teacher"]["weights"] == "random:3"


def test_a_teacher_reads_captions_and_has_the_weights_of_the_features(folder, capsys):
    from tests.pipeline import store_factory

    made, spec = manifest(), recipe("vggish").spec
    store = FeatureStore.create(folder / "features", made, [spec])
    store_factory.fill(store, made, spec.key)
    with pytest.raises(SystemExit):
        run(folder, teachers=("vggish",))
    assert "a space shared with text" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(folder, "--accept-thresholds", teachers=("clip-tiny=random:4",))
    assert "were made with random:3, these weights are random:4" in capsys.readouterr().err


def test_damaged_rows_give_no_labels(folder):
    """Rows that became NaN behind the store's back are counted, not labelled with zeros."""
    store = FeatureStore.create(folder / "features", manifest(), [])
    values = store.values(store.key("clip-tiny"))
    rows = values[2]
    rows[3, 0] = np.nan
    values[2] = rows
    assert run(folder, "--accept-thresholds", teachers=("clip-tiny",)) == 0
    assert json.loads((folder / "receipt.json").read_text())["outcomes"]["visual"] == {"non-finite": 1, "ok": 5}
    assert LabelStore.open(folder / "labels").outcome("clip-02", "visual") == "non-finite"
