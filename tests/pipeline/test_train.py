"""Training, from a store to predictions: learning, selection, and what is said on the way."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pipeline import memory, training
from pipeline.manifest import Manifest
from pipeline.predictions import Predictions
from tests.pipeline.training_factory import CLASSES, CONFIG, curves, data, place, run  # noqa: F401 - a fixture


def test_learns_what_the_features_show(place):  # noqa: F811
    assert run(place, "--epochs", "14") == 0
    receipt = json.loads((place / "out/train.json").read_text())
    assert receipt["best"]["best-validation"]["test"]["main"] > 90
    assert receipt["best"]["best-test"]["test"]["main"] >= receipt["best"]["best-validation"]["test"]["main"]
    stored = Predictions.load(place / "out/predictions.npz")
    assert stored.clips.tolist() == [f"{split}-{n:03d}" for split in ("val", "test") for n in range(6)]
    assert stored.of("best-validation", "test")["scores"].shape == (6, 10, 4)
    assert receipt["arguments"]["coverage"]["train"] == {"clips": 24, "used": 24, "excluded": {}}


def test_streaming_gives_the_same_trajectory(place):  # noqa: F811
    run(place, "--epochs", "2", out="held")
    run(place, "--epochs", "2", "--stream", "--loader-workers", "1", out="streamed")
    assert curves(place, "held") == curves(place, "streamed")


def test_data_that_outgrow_the_free_memory_are_streamed(place, capsys, monkeypatch):  # noqa: F811
    item_bytes = 4 * 10 * (2 * 2 * 6 + 5) + 4 * 10 * 4 + 4 * 4  # streams, one-hot segments, one-hot clip
    for room, said in ((2 * 36 * item_bytes, "read from the store"), (2 * 36 * item_bytes + 2, "held on cpu")):
        monkeypatch.setattr(memory, "free_bytes", lambda room=room: room)
        assert run(place, "--epochs", "1", "--loader-workers", "0", out=said) == 0
        assert said in capsys.readouterr().err


def test_seeds_differ_and_repeat(place):  # noqa: F811
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(place, "--epochs", "2", "--seed", seed, out=out)
    assert curves(place, "a") == curves(place, "b") != curves(place, "c")


def test_what_few_epochs_leave_out_is_said(place, capsys):  # noqa: F811
    (place / "avel.yaml").write_text(CONFIG + "schedule: {kind: milestones, epochs: [1, 3], factor: 0.5}\n")
    for epochs, said in (("2", True), ("4", False)):
        run(place, "--epochs", epochs, out=epochs)
        assert ("does not fall after epoch 3: there are 2 epochs" in capsys.readouterr().err) == said


def test_a_contrast_that_never_begins_is_said(place, capsys):  # noqa: F811
    network = "width: 16, visual_width: 16, audio_width: 6, encoder_hidden: 32, decoder_hidden: 32, contrast_from: 2"
    config = CONFIG.replace("model: avel", "model: cace-net").replace("hidden: 16, lstm: 8, head: 8", network)
    (place / "avel.yaml").write_text(config)
    for epochs, said in (("2", True), ("3", False)):
        assert run(place, "--model", "cace-net", "--epochs", epochs, out=epochs) == 0
        assert ("contrast never begins: it would after 2 epochs" in capsys.readouterr().err) == said


def test_the_best_epoch_is_counted_as_the_log_counts(place, capsys):  # noqa: F811
    run(place, "--epochs", "3")
    told = capsys.readouterr()
    stored = json.loads((place / "out/train.json").read_text())["best"]["best-validation"]
    (line,) = [line for line in told.out.splitlines() if line.startswith("best-validation: ")]
    number = int(line.split("epoch ")[1].split("/")[0])
    assert number == stored["epoch"] + 1
    assert f"epoch {number}/3: loss" in told.err
    assert f"val {stored['val']['main']:.2f}" in line


def test_stops_early(place):  # noqa: F811
    (place / "avel.yaml").write_text(CONFIG.replace("lr: 1.0e-2", "lr: 0.0"))
    run(place, "--epochs", "200", "--patience", "3")
    receipt = json.loads((place / "out/train.json").read_text())
    assert receipt["stopped_early"]
    assert (receipt["best"]["best-validation"]["epoch"], receipt["epochs"]) == (0, 4)


def test_videos_that_several_splits_show_are_told(place, capsys):  # noqa: F811
    made = Manifest.load(place / "manifest.parquet")
    assert run(place, "--epochs", "1", out="apart") == 0
    assert "train shows too" not in capsys.readouterr().err
    shared = {"test-001": "train-004", "test-002": "train-005", "val-000": "train-000"}
    clips = tuple(dataclasses.replace(clip, source_id=shared.get(clip.id, clip.id)) for clip in made.clips)
    Manifest("ave", clips, CLASSES).save(place / "manifest.parquet")
    assert run(place, "--epochs", "1", out="shared") == 0
    told = capsys.readouterr().err
    assert "test: 2 clips are of videos that train shows too" in told
    assert "val: 1 clip is of a video that train shows too" in told


def test_clips_without_features_are_counted(tmp_path, capsys):
    data(tmp_path, absent=(0, 5, 30))
    (tmp_path / "avel.yaml").write_text(CONFIG)
    assert run(tmp_path, "--epochs", "1") == 0
    receipt = json.loads((tmp_path / "out/train.json").read_text())
    coverage = receipt["arguments"]["coverage"]
    assert coverage["train"]["used"] == 22
    assert coverage["test"]["excluded"] == {"audio: no-audio (the file has no audio stream)": 1}
    assert "test-000" not in Predictions.load(tmp_path / "out/predictions.npz").clips


def test_background_clips_join_weak_training(place, capsys):  # noqa: F811
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
def test_mixed_precision_learns_too(place, capsys, monkeypatch, native):  # noqa: F811
    """Also on a processor without arithmetic in bf16, where oneDNN has no LSTM for it; that is said."""
    if native and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not compute in bf16")
    monkeypatch.setattr(training, "_emulates_bf16", lambda device: not native)
    assert run(place, "--precision", "bf16", "--epochs", "14") == 0
    assert json.loads((place / "out/train.json").read_text())["best"]["best-validation"]["test"]["main"] > 80
    assert ("does not compute in bf16" in capsys.readouterr().err) != native


def test_one_clip_per_split_is_enough(tmp_path):
    data(tmp_path, sizes={"train": 1, "val": 1, "test": 1})
    (tmp_path / "avel.yaml").write_text(CONFIG + "drop_last: true\n")
    assert run(tmp_path, "--epochs", "2") == 0
