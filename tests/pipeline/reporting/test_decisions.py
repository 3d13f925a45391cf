"""What a model decided for each segment, read from its predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.manifest import Event
from pipeline.predictions import Predictions
from pipeline.reporting import decisions, gather
from tests.pipeline.report_factory import CLASSES


def test_decisions_are_those_of_score(run_folder: Path) -> None:
    """The share of wrong segments of the report and the accuracy of `score` are the same thing seen from two sides."""
    run = gather.open_run(run_folder)
    by_name = {decided.name: decided for decided in decisions.all_decisions(run)}
    assert sorted(by_name) == ["avel-supervised-0", "cace_net-supervised-0"]  # one seed of each model
    for name, decided in by_name.items():
        content = json.loads((run_folder / "scores" / f"{name}.json").read_text())
        accuracy = content["runs"][0]["scores"]["best-validation"]["test"]["accuracy"]
        wrong = decided.wrong(run.manifest.clips)
        assert set(wrong) == {clip.id for clip in run.manifest.split("test")}
        assert 100 * (1 - np.mean(list(wrong.values()))) == pytest.approx(accuracy)


def test_decisions_of_avvp_models_keep_the_modalities_apart(tmp_path: Path) -> None:
    video = np.array([[0.9, 0.4, 0.5]])
    audio, visual = np.full((1, 10, 3), 0.1), np.full((1, 10, 3), 0.1)
    audio[0, 2:5] = 0.5  # of all classes; the clip-level probability vetoes class 1
    visual[0, 7:, 0] = 0.8
    arrays = {"best-validation": {"video": video, "audio": audio, "visual": visual}}
    others = ("model", "setting", "seed", "dataset", "manifest", "features", "labels", "coverage", "recipe", "best")
    facts = dict.fromkeys(others) | {"task": "avvp", "gate_is": "logits"}
    Predictions(np.array(["a"]), np.array(["test"]), arrays, facts).save(tmp_path / "predictions.npz")
    found = decisions.read_decisions(tmp_path / "predictions.npz", "han-weak-0", CLASSES)
    assert set(found.events(0, 10.0)) == {
        Event("bell", "audio", 2.0, 5.0),
        Event("bird", "audio", 2.0, 5.0),
        Event("bell", "visual", 7.0, 10.0),
    }
    with pytest.raises(ValueError, match="expected \\(1, segments, 2\\)"):
        decisions.read_decisions(tmp_path / "predictions.npz", "han-weak-0", CLASSES[:2])


def test_events_of_decisions() -> None:
    grid = np.zeros((1, 10, 3), dtype=bool)
    grid[0, [0, 1, 4], 1] = True
    found = decisions.Decisions("m", ("a",), CLASSES, {"audio": grid}).events(0, 20.0)
    assert found == (Event("drum", "audio", 0.0, 4.0), Event("drum", "audio", 8.0, 10.0))
