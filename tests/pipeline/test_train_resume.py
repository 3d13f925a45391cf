"""An earlier training in the folder: taken up to the same result, or told why not."""

import numpy as np
import pytest
import torch

from pipeline import train
from pipeline.training import Training
from tests.pipeline.training_factory import CONFIG, curves, data, place, run  # noqa: F401 - a fixture


@pytest.mark.parametrize("setting", ["supervised", "weak"])
@pytest.mark.parametrize("step", ["_checkpoint", "_select", "_autocast"])
def test_an_interrupted_training_ends_the_same(place, setting, step, monkeypatch):  # noqa: F811
    """Killed after the checkpoint of an epoch, before it but after the best weights, or between two batches."""
    assert run(place, "--setting", setting, out="whole") == 0
    real, calls = getattr(Training, step), []

    def die(self, *given):
        result = real(self, *given)
        calls.append(self.progress.iteration)
        if self.progress.epoch >= 1 and (step != "_autocast" or self.progress.iteration % 3 == 2):
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Training, step, die)
    with pytest.raises(SystemExit):
        run(place, "--setting", setting, out="cut")
    assert not (place / "cut/train.json").exists()
    assert calls[-1] == {"_checkpoint": 3, "_select": 6, "_autocast": 5}[step]
    monkeypatch.undo()
    torch.manual_seed(999)  # the state before a resume must not matter
    assert run(place, "--setting", setting, out="cut") == 0
    assert curves(place, "cut") == curves(place, "whole")
    assert (place / "cut/train.json").read_text() == (place / "whole/train.json").read_text()
    for name in ("best-validation.pt", "best-test.pt"):
        assert (place / "cut" / name).read_bytes() == (place / "whole" / name).read_bytes()
    ends = [torch.load(place / out / "checkpoint.pt", weights_only=True)["network"] for out in ("cut", "whole")]
    assert all(torch.equal(values, ends[1][name]) for name, values in ends[0].items())


def test_other_settings_do_not_resume(place, capsys):  # noqa: F811
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


def test_what_fits_is_taken_up_unless_it_is_to_be_forgotten(place, capsys, monkeypatch):  # noqa: F811
    run(place, "--epochs", "2")
    epochs = []
    report = train._report
    monkeypatch.setattr(train, "_report", lambda line, total: epochs.append(line["epoch"]) or report(line, total))
    assert run(place, "--epochs", "2", "--stale", "restart") == 0
    assert epochs == []
    assert run(place, "--epochs", "2", "--restart") == 0
    assert epochs == [0, 1]


def test_features_made_anew_are_trained_anew(place, capsys):  # noqa: F811
    run(place, "--epochs", "2")
    before = (place / "out/train.json").read_bytes()
    data(place)  # the same bytes, by another writer
    assert run(place, "--epochs", "2") == 0
    assert (place / "out/train.json").read_bytes() == before
    data(place, noise=0.2)
    with pytest.raises(SystemExit):
        run(place, "--epochs", "2")
    assert "other data or settings: content features audio, content features visual;" in capsys.readouterr().err


def test_other_background_clips_are_other_data(place, capsys):  # noqa: F811
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


def test_a_damaged_checkpoint_is_told(place, capsys):  # noqa: F811
    run(place, "--epochs", "2")
    (place / "out/checkpoint.pt").write_bytes(b"half")
    with pytest.raises(SystemExit):
        run(place, "--epochs", "2")
    assert "unreadable" in capsys.readouterr().err
    assert run(place, "--epochs", "2", "--stale", "restart") == 0
    assert "unreadable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ("8", "the loss is not finite in epoch 2, batch 2"),
        ("24", "predictions of split val are not finite after epoch 2"),
    ],
)
def test_a_training_that_diverges_ends_with_the_last_good_checkpoint(place, capsys, batch, says):  # noqa: F811
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


@pytest.mark.parametrize("more", [("--epochs", "3"), ("--restart", "--device", "cuda:99")])
def test_a_refused_command_leaves_the_finished_training_finished(place, capsys, more):  # noqa: F811
    run(place, "--epochs", "2")
    before = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    with pytest.raises(SystemExit):
        run(place, *more)
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == before
