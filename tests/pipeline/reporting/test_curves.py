"""Learning curves of trainings and fine-tunings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.reporting import curves, gather
from pipeline.run import write_json


def test_learning_curves_of_train_and_finetune(tmp_path: Path) -> None:
    for seed in range(2):
        folder = tmp_path / "train" / f"avel-weak-{seed}"
        lines = [
            {"epoch": e, "loss": {"a": 1.0, "total": 2.0}, "train_s": 0.5 + e, "val": {"main": 1, "accuracy": 60 + e}}
            for e in range(3)
        ]
        write_json(folder / "curves.json", lines)
    folder = tmp_path / "finetune" / "resnet50"
    folder.mkdir(parents=True)
    (folder / "curves.jsonl").write_text('{"step": 0, "loss": 3.5, "val_loss": 3.6}\nnot json\n')
    run = gather.open_run(tmp_path)
    (figure,) = curves.curve_figures(run, "train")
    assert (figure.name, figure.runs) == ("avel-weak", 2)
    assert "loss total" in figure.svg
    assert ">accuracy<" in figure.svg
    assert ">loss a<" not in figure.svg
    assert ">main<" not in figure.svg
    assert curves.seconds_per_epoch(run, tmp_path / "train" / "avel-weak-0") == pytest.approx(1.5)
    (figure,) = curves.curve_figures(run, "finetune")
    assert figure.name == "resnet50"
    before = curves._series(run, folder / "curves.jsonl", 0)["train", "loss"]
    assert (before[0].tolist(), before[1].tolist()) == ([0.0], [3.5]), "the state before the first epoch"
    assert any("1 line(s) are no JSON objects" in note for note in run.notes)
