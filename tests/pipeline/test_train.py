"""Training, from a store to predictions: learning, exact resume, selection, and what goes wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline import memory, train, training
from pipeline.manifest import Clip, Event, Manifest
from pipeline.predictions import Predictions
from pipeline.store import FeatureStore
from tests.pipeline import store_factory
from tests.pipeline.store_factory import spec

CLASSES = ("Bell", "Dog", "Cat")
SIZES = {"train": 24, "val": 6, "test": 6}


def data(folder, absent=(), sizes=SIZES, nan=(), noise=0.1):
    """A manifest and a store whose features show the class and the time of the event, with a little noise."""
    rng = np.random.default_rng(0)
    clips, targets = [], []
    for split, count in sizes.items():
        for number in range(count):
            label, start = number % 3, number % 4
            event = Event(CLASSES[label], "both", float(start), float(start + 5))
            name = f"{split}-{number:03d}"
            clips.append(Clip(name, name, None, 10.0, split, (CLASSES[label],), (event,)))
            targets.append((label, start))
    manifest = Manifest("ave", tuple(clips), CLASSES, {"annotations": {"Annotations.txt": {"version": "published"}}})
    manifest.save(folder / "manifest.parquet")
    specs = {
        "visual": spec("vgg19", (2, 2, 6), modality="visual"),
        "audio": spec("vggish", (5,)),
    }
    store = FeatureStore.create(folder / "store", manifest, list(specs.values()))
    for stream, entry in specs.items():
        for block, span in store.blocks(entry.key):
            writer = store.writer(entry.key, block)
            for row in span:
                label, start = targets[row]
                values = rng.normal(0, noise, (10, *entry.shape)).astype(np.float32)
                values[start : start + 5, ..., label] += 2.0
                if row in absent and stream == "audio":
                    writer.fail(row, "no-audio", "silent")
                else:
                    writer.put(row, values, entry.grid.segments(10.0))
            writer.commit()
    if nan:
        values = store.values(specs["audio"].key)
        for row in nan:
            broken = values[row]
            broken[3, 0] = np.nan
            values[row] = broken
    return manifest


CONFIG = """
model: avel
features: {visual: "vgg19:ave2018", audio: "vggish:ave2018"}
network: {hidden: 16, lstm: 8, head: 8}
optimizer: {name: adam, lr: 1.0e-2}
batch: 8
settings:
  supervised: {epochs: 4}
  weak: {epochs: 4}
"""


@pytest.fixture
def place(tmp_path):
    data(tmp_path)
    (tmp_path / "avel.yaml").write_text(CONFIG)
    return tmp_path


def run(place, *more, out="out"):
    where = ["--manifest", str(place / "manifest.parquet"), "--store", str(place / "store")]
    what = ["--model", "avel", "--config", str(place / "avel.yaml"), "--seed", "1"]
    return train.main([*where, *what, "--out", str(place / out), *more])


def curves(place, out="out"):
    lines = json.loads((place / out / "curves.json").read_text())
    return [{name: value for name, value in line.items() if name != "train_s"} for line in lines]


def test_learns_what_the_features_show(place):
    assert run(place, "--epochs", "14") == 0
    receipt = json.loads((place / "out/train.json").read_text())
    assert receipt["best"]["best-validation"]["test"]["main"] > 90
    assert receipt["best"]["best-test"]["test"]["main"] >= receipt["best"]["best-validation"]["test"]["main"]
    stored = Predictions.load(place / "out/predictions.npz")
    assert stored.clips.tolist() == [f"{split}-{n:03d}" for split in ("val", "test") for n in range(6)]
    assert stored.of("best-validation", "test")["scores"].shape == (6, 10, 4)
    assert receipt["arguments"]["coverage"]["train"] == {"clips": 24, "used": 24, "excluded": {}}


@pytest.mark.parametrize("setting", ["supervised", "weak"])
def test_an_interrupted_training_ends_the_same(place, setting, monkeypatch):
    assert run(place, "--setting", setting, out="whole") == 0

    from pipeline.training import Training

    checkpoint = Training._checkpoint

    def die(self):
        checkpoint(self)
        if self.progress.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_checkpoint", die)
    with pytest.raises(SystemExit):
        run(place, "--setting", setting, out="cut")
    assert not (place / "cut/train.json").exists()
    monkeypatch.undo()
    torch.manual_seed(999)  # the state before a resume must not matter
    assert run(place, "--setting", setting, out="cut") == 0
    assert curves(place, "cut") == curves(place, "whole")
    assert (place / "cut/train.json").read_text() == (place / "whole/train.json").read_text()


def test_streaming_gives_the_same_trajectory(place):
    run(place, "--epochs", "2", out="held")
    run(place, "--epochs", "2", "--stream", "--loader-workers", "1", out="streamed")
    assert curves(place, "held") == curves(place, "streamed")


def test_data_that_outgrow_the_free_memory_are_streamed(place, capsys, monkeypatch):
    item_bytes = 4 * 10 * (2 * 2 * 6 + 5) + 4 * 10 * 4 + 4 * 4  # streams, one-hot segments, one-hot clip
    for room, said in ((2 * 36 * item_bytes, "read from the store"), (2 * 36 * item_bytes + 2, "held on cpu")):
        monkeypatch.setattr(memory, "free_bytes", lambda room=room: room)
        assert run(place, "--epochs", "1", "--loader-workers", "0", out=said) == 0
        assert said in capsys.readouterr().err


def test_seeds_differ_and_repeat(place):
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(place, "--epochs", "2", "--seed", seed, out=out)
    assert curves(place, "a") == curves(place, "b") != curves(place, "c")


def test_what_few_epochs_leave_out_is_said(place, capsys):
    (place / "avel.yaml").write_text(CONFIG + "schedule: {kind: milestones, epochs: [1, 3], factor: 0.5}\n")
    for epochs, said in (("2", True), ("4", False)):
        run(place, "--epochs", epochs, out=epochs)
        assert ("does not fall after epoch 3: there are 2 epochs" in capsys.readouterr().err) == said


def test_a_contrast_that_never_begins_is_said(place, capsys):
    network = "width: 16, visual_width: 16, audio_width: 6, encoder_hidden: 32, decoder_hidden: 32, contrast_from: 2"
    config = CONFIG.replace("model: avel", "model: cace-net").replace("hidden: 16, lstm: 8, head: 8", network)
    (place / "avel.yaml").write_text(config)
    for epochs, said in (("2", True), ("3", False)):
        assert run(place, "--model", "cace-net", "--epochs", epochs, out=epochs) == 0
        assert ("contrast never begins: it would after 2 epochs" in capsys.readouterr().err) == said


def test_the_best_epoch_is_counted_as_the_log_counts(place, capsys):
    run(place, "--epochs", "3")
    told = capsys.readouterr()
    stored = json.loads((place / "out/train.json").read_text())["best"]["best-validation"]
    (line,) = [line for line in told.out.splitlines() if line.startswith("best-validation: ")]
    number = int(line.split("epoch ")[1].split("/")[0])
    assert number == stored["epoch"] + 1
    assert f"epoch {number}/3: loss" in told.err
    assert f"val {stored['val']['main']:.2f}" in line


def test_stops_early(place):
    (place / "avel.yaml").write_text(CONFIG.replace("lr: 1.0e-2", "lr: 0.0"))
    run(place, "--epochs", "200", "--patience", "3")
    receipt = json.loads((place / "out/train.json").read_text())
    assert receipt["stopped_early"]
    assert (receipt["best"]["best-validation"]["epoch"], receipt["epochs"]) == (0, 4)


def test_other_settings_do_not_resume(place, capsys):
    run(place, "--epochs", "2")
    with pytest.raises(SystemExit):
        run(place, "--epochs", "3")
    assert "other data or settings: recipe epochs; choose" in capsys.readouterr().err
    assert run(place, "--epochs", "3", "--stale", "restart") == 0
    assert "other data or settings: recipe epochs; it is forgotten" in capsys.readouterr().err
    assert len(curves(place)) == 3
    assert run(place, "--epochs", "3", out="fresh") == 0
    for name in ("train.json", "best-validation.pt"):
        assert (place / "out" / name).read_bytes() == (place / "fresh" / name).read_bytes()


def test_what_fits_is_taken_up_unless_it_is_to_be_forgotten(place, capsys, monkeypatch):
    run(place, "--epochs", "2")
    epochs = []
    report = train._report
    monkeypatch.setattr(train, "_report", lambda line, total: epochs.append(line["epoch"]) or report(line, total))
    assert run(place, "--epochs", "2", "--stale", "restart") == 0
    assert epochs == []
    assert run(place, "--epochs", "2", "--restart") == 0
    assert epochs == [0, 1]


def test_features_made_anew_are_trained_anew(place, capsys):
    run(place, "--epochs", "2")
    before = (place / "out/train.json").read_bytes()
    data(place)  # the same bytes, by another writer
    assert run(place, "--epochs", "2") == 0
    assert (place / "out/train.json").read_bytes() == before
    data(place, noise=0.2)
    with pytest.raises(SystemExit):
        run(place, "--epochs", "2")
    assert "other data or settings: content features audio, content features visual;" in capsys.readouterr().err


def test_other_background_clips_are_other_data(place, capsys):
    import h5py

    def write(level):
        for name, shape in (("visual", (5, 10, 2, 2, 6)), ("audio", (5, 10, 5))):
            with h5py.File(place / f"{name}_feature_noisy.h5", "w") as file:
                file["avadataset"] = np.full(shape, level)

    flags = ["--setting", "weak", "--epochs", "1", "--background", str(place)]
    write(0.0)
    assert run(place, *flags) == 0
    assert run(place, *flags) == 0
    write(1.0)
    with pytest.raises(SystemExit):
        run(place, *flags)
    assert "other data" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(place, capsys):
    run(place, "--epochs", "2")
    (place / "out/checkpoint.pt").write_bytes(b"half")
    with pytest.raises(SystemExit):
        run(place, "--epochs", "2")
    assert "unreadable" in capsys.readouterr().err
    assert run(place, "--epochs", "2", "--stale", "restart") == 0
    assert "unreadable" in capsys.readouterr().err


def test_clips_without_features_are_counted(tmp_path, capsys):
    data(tmp_path, absent=(0, 5, 30))
    (tmp_path / "avel.yaml").write_text(CONFIG)
    assert run(tmp_path, "--epochs", "1") == 0
    receipt = json.loads((tmp_path / "out/train.json").read_text())
    coverage = receipt["arguments"]["coverage"]
    assert coverage["train"]["used"] == 22
    assert coverage["test"]["excluded"] == {"audio: no-audio (the file has no audio stream)": 1}
    assert "test-000" not in Predictions.load(tmp_path / "out/predictions.npz").clips


def test_background_clips_join_weak_training(place, capsys):
    import h5py

    for name, shape in (("visual", (5, 10, 2, 2, 6)), ("audio", (5, 10, 5))):
        with h5py.File(place / f"{name}_feature_noisy.h5", "w") as file:
            file["avadataset"] = np.zeros(shape)
    more = ["--epochs", "1", "--background", str(place)]
    assert run(place, "--setting", "weak", *more, out="weak") == 0
    assert run(place, "--setting", "weak", "--epochs", "1", out="plain") == 0
    assert curves(place, "weak")[0]["loss"] != curves(place, "plain")[0]["loss"]
    with pytest.raises(SystemExit):
        run(place, *more)
    assert "for weak training" in capsys.readouterr().err
    with h5py.File(place / "audio_feature_noisy.h5", "w") as file:
        file["avadataset"] = np.zeros((5, 10, 128))
    with pytest.raises(SystemExit):
        run(place, "--setting", "weak", *more, out="wrong")
    assert "of the same encoders" in capsys.readouterr().err


@pytest.mark.parametrize("native", [True, False])
def test_mixed_precision_learns_too(place, capsys, monkeypatch, native):
    """Also on a processor without arithmetic in bf16, where oneDNN has no LSTM for it; that is said."""
    if native and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not compute in bf16")
    monkeypatch.setattr(training, "_emulates_bf16", lambda device: not native)
    assert run(place, "--precision", "bf16", "--epochs", "14") == 0
    assert json.loads((place / "out/train.json").read_text())["best"]["best-validation"]["test"]["main"] > 80
    assert ("does not compute in bf16" in capsys.readouterr().err) != native


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ("8", "the loss is not finite in epoch 2, batch 2"),
        ("24", "predictions of split val are not finite after epoch 2"),
    ],
)
def test_a_training_that_diverges_ends_with_the_last_good_checkpoint(place, capsys, batch, says):
    schedule = "schedule: {kind: milestones, epochs: [1], factor: 1.0e+41}\n"  # beyond float32
    (place / "avel.yaml").write_text(CONFIG + schedule)
    with pytest.raises(SystemExit):
        run(place, "--batch", batch)
    told = capsys.readouterr().err
    assert says in told
    assert "lower learning rate" in told
    kept = torch.load(place / "out/checkpoint.pt", weights_only=True)
    assert kept["progress"]["epoch"] == 1
    assert all(values.isfinite().all() for values in kept["network"].values())
    assert not (place / "out/train.json").exists()


def test_published_numbers_are_those_of_the_recipes_own_features(place):
    config = CONFIG.replace("epochs: 4}\n  weak", "epochs: 1, published: {accuracy: 72.7}}\n  weak")
    (place / "avel.yaml").write_text(config)
    other = spec("vgg19", (2, 2, 6), modality="visual", recipe="default")
    made = Manifest.load(place / "manifest.parquet")
    tuned = spec("vggish", (5,), weights="sha256:" + "cd" * 32)
    for out, flags in (("own", ()), ("own-by-key", ("--audio", spec("vggish", (5,)).key))):
        assert run(place, *flags, out=out) == 0
    store = FeatureStore.create(place / "store", made, [other, tuned])
    store_factory.fill(store, made, other.key)
    store_factory.fill(store, made, tuned.key)
    for out, flags in (
        ("other", ("--visual", "vgg19", "--audio", spec("vggish", (5,)).key)),
        ("tuned", ("--audio", tuned.key)),
    ):
        assert run(place, *flags, out=out) == 0
    (place / "avel.yaml").write_text(config.replace("72.7", "72.8"))  # no reason to train anew
    assert run(place, "--audio", spec("vggish", (5,)).key, out="own-by-key") == 0
    (place / "avel.yaml").write_text(config)
    for out, published in (
        ("own", {"accuracy": 72.7}),
        ("own-by-key", {}),  # the store has two of that name by now, and this one is not the published one
        ("other", {}),
        ("tuned", {}),
    ):
        assert json.loads((place / out / "train.json").read_text())["published"] == published
        assert Predictions.load(place / out / "predictions.npz").facts["recipe"]["published"] == published


def test_published_numbers_are_of_the_papers_dataset(place):
    (place / "avel.yaml").write_text(
        CONFIG.replace("{epochs: 4}\n  weak", "{epochs: 1, published: {accuracy: 72.7}}\n  weak")
    )
    made = Manifest.load(place / "manifest.parquet")
    for dataset, published in (("ave", {"accuracy": 72.7}), ("own-clips", {})):
        Manifest(dataset, made.clips, CLASSES).save(place / "manifest.parquet")
        assert run(place, out=dataset) == 0
        assert json.loads((place / dataset / "train.json").read_text())["published"] == published


def test_one_clip_per_split_is_enough(tmp_path):
    data(tmp_path, sizes={"train": 1, "val": 1, "test": 1})
    (tmp_path / "avel.yaml").write_text(CONFIG + "drop_last: true\n")
    assert run(tmp_path, "--epochs", "2") == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--visual", "resnet50"], "pipeline.extract --encoders resnet50"),
        (["--visual", "vggish:ave2018", "--audio", "vgg19:ave2018"], "expected one vector per segment"),
        (["--model", "cmran"], "configures model 'avel'"),
        (["--device", "cuda:99"], "CUDA"),
    ],
)
def test_what_does_not_fit_the_files_is_told(place, capsys, flags, words):
    if torch.cuda.is_available() and "--device" in flags:
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(SystemExit) as ended:
        run(place, *flags)
    assert ended.value.code == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "avle"], "avel"),
        (["--model", "cace-net", "--setting", "weak"], "trained supervised"),
        (["--model", "valor", "--setting", "weak"], "give --labels"),
        (["--motion", "r2plus1d"], "does not read --motion; its streams are visual, audio"),
        (["--device", "mps"], "write cpu, cuda or cuda:N"),
        (["--epochs", "0", "--batch", "-2"], "--epochs 0: at least 1; --batch -2: at least 1"),
        (["--patience", "0"], "--patience 0: at least 1"),
        (["--loader-workers", "-1"], "--loader-workers -1: at least 0"),
        (["--seed", "-1"], "--seed -1: 0 to 4294967295"),
        (["--seed", "99999999999999999999"], "0 to 4294967295"),
        (["--background", "d"], "for weak training"),
        (["--model", "han", "--setting", "weak", "--background", "d"], "one visual and one audio feature"),
        (["--setting", "weak", "--background", "d", "--stream"], "leave out --stream"),
    ],
)
def test_wrong_flags_are_told_before_files_are_looked_for(tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network: {width: 3}", "no option width"),
        ("optimizer: {name: adam, lr: 1e-3}", "1.0e-3"),
        ("colour: blue", "unknown fields colour"),
        ("base: nowhere.yaml", "no such training configuration"),
    ],
)
def test_wrong_configurations_are_told(place, capsys, change, words):
    name = change.split(":")[0]
    kept = [line for line in CONFIG.splitlines() if not line.startswith(name + ":")]
    (place / "avel.yaml").write_text("\n".join([*kept, change]))
    with pytest.raises(SystemExit):
        run(place)
    assert words in capsys.readouterr().err


def test_nan_names_the_clips(tmp_path, capsys):
    data(tmp_path, nan=(2, 4))
    (tmp_path / "avel.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "train-002, train-004" in capsys.readouterr().err


def test_streams_of_other_lengths_than_the_labels_are_told(place, capsys):
    made = Manifest.load(place / "manifest.parquet")
    half = spec("vggish", (5,), recipe="half", count=20, window_s=0.5)
    store_factory.fill(FeatureStore.create(place / "store", made, [half]), made, half.key)
    with pytest.raises(SystemExit):
        run(place, "--audio", "vggish:half")
    told = capsys.readouterr().err
    assert f"10 label segments, one a second, but of the streams 'audio' has 20 rows ({half.key})" in told
    assert "one row a second: --audio" in told


def test_a_store_of_other_clips_is_told(place, tmp_path, capsys):
    clips = tuple(Clip(f"x{n}", f"x{n}", None, 10.0, "train", ("Bell",)) for n in range(3))
    Manifest("llp", clips, CLASSES).save(place / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(place)
    assert "none of the 3 clips" in capsys.readouterr().err


def test_labels_without_audio_visual_events_are_told(place, capsys):
    made = Manifest.load(place / "manifest.parquet")
    clips = tuple(
        Clip(c.id, c.source_id, None, 10.0, c.split, c.labels, (Event(c.labels[0], "audio", 0.0, 3.0),))
        for c in made.clips
    )
    Manifest("llp", clips, CLASSES).save(place / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(place)
    assert "no event of llp is audio-visual" in capsys.readouterr().err


def test_help_ends_in_an_example():
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--out demo/train/avel-supervised-0" in shown.strip().splitlines()[-1]


@pytest.mark.parametrize("more", [("--epochs", "3"), ("--restart", "--device", "cuda:99")])
def test_a_refused_command_leaves_the_finished_training_finished(place, capsys, more):
    run(place, "--epochs", "2")
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    with pytest.raises(SystemExit):
        run(place, *more)
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == before
