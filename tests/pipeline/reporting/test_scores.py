"""Tables of scores equal the files of `pipeline.score`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.reporting import gather, scores
from pipeline.run import write_json
from tests.pipeline.reporting.parsed_page import Elements


def test_scores_equal_the_files_of_score(run_folder: Path, page: str) -> None:
    contents = [json.loads(path.read_text()) for path in sorted((run_folder / "scores").glob("*.json"))]
    honest = [c["runs"][0]["scores"]["best-validation"]["test"]["accuracy"] for c in contents if c["model"] == "avel"]
    (table,) = scores.score_tables(gather.open_run(run_folder))
    avel, cace = table.groups
    assert (avel.model, avel.seeds, cace.model) == ("avel", ["0", "1", "2"], "cace_net")
    assert avel.scores["accuracy"] == honest
    assert table.references["chance"]["accuracy"] == pytest.approx(25.0)
    # 4 of 10 seconds of every clip hold an event, by construction.
    assert table.references["always background"]["accuracy"] == pytest.approx(60.0)
    words = Elements(page).words
    assert f"{np.mean(honest):.1f} ± {np.std(honest, ddof=1):.1f}" in words
    assert "random weights" in words
    assert "accuracy 72.7" in words


def test_avvp_scores_have_all_columns(tmp_path: Path) -> None:
    table = {"A": 50.0, "V": 40.0, "AV": 30.0, "Type": 40.0, "Event": 45.0}
    test = {"test": {"main": 40.0, "segment": table, "event": {name: value - 10 for name, value in table.items()}}}
    content = {
        "stage": "score", "model": "han", "setting": "weak", "task": "avvp", "features": {},
        "published": {"segment": {"A": 60.1, "Type": 54.0}, "event": {"Type": 47.7}, "note": "from the paper"},
        "references": {"test": {"nothing": {"segment": {"Type": 8.0}, "event": {"Type": 8.0}}}},
        "runs": [{"seed": seed, "scores": {"best-validation": test, "best-test": test}} for seed in (0, 1)],
    }  # fmt: skip
    write_json(tmp_path / "scores" / "han-weak.json", content)
    (found,) = scores.score_tables(gather.open_run(tmp_path))
    assert found.headline == "segment Type"
    assert found.columns[:6] == ["segment A", "segment V", "segment AV", "segment Type", "segment Event", "event A"]
    assert found.groups[0].cell("event Event") == "35.0 ± 0.0"
    assert found.references["nothing"]["segment Type"] == 8.0
    assert found.groups[0].facts["published, real data"] == "segment Type 54"
    assert found.notes == [
        "Published for han weak: from the paper",
        "Published for han weak: segment A 60.1, segment Type 54, event Type 47.7",
    ]


def test_a_mean_over_different_clips_is_said(tmp_path: Path) -> None:
    for seed, used in enumerate((9, 9, 8)):
        coverage = {"test": {"clips": 9, "used": used, "excluded": {}}}
        _avel(tmp_path, f"avel-supervised-{seed}", 40.0, seed=seed, experiment="one", coverage=coverage)
    (found,) = scores.score_tables(gather.open_run(tmp_path))
    (note,) = found.notes
    assert "avel-supervised-2.json was scored on 8 of 9 clips" in note
    assert "on 9 of 9" in note


def _avel(folder: Path, name: str, value: float, seed: int = 0, **facts: object) -> None:
    test = {"test": {"main": value, "accuracy": value}}
    content = {
        "stage": "score", "model": "avel", "setting": "supervised", "task": "ave", "features": {}, "references": {},
        "runs": [{"seed": seed, "scores": {"best-validation": test, "best-test": test}}],
    }  # fmt: skip
    write_json(folder / "scores" / f"{name}.json", content | facts)


def test_trainings_with_other_labels_or_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    _avel(tmp_path, "avel-supervised-0", 40.0, experiment="one")
    _avel(tmp_path, "avel-supervised-1", 50.0, seed=1, experiment="one")
    _avel(tmp_path, "avel-supervised-long-0", 90.0, experiment="two")
    _avel(tmp_path, "avel-supervised-again-0", 10.0, experiment="one")
    (found,) = scores.score_tables(gather.open_run(tmp_path))
    # Files are read in order of their names: what repeats a seed is left out, and said.
    shown = {group.name: (group.seeds, group.scores["accuracy"]) for group in found.groups}
    assert shown == {
        "avel supervised": (["0", "1"], [40.0, 50.0]),
        "avel supervised long": (["0"], [90.0]),
    }
    assert any("again-0" in note and "left out" in note for note in found.notes)
