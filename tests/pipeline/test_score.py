"""Scores recomputed from stored predictions."""

import json

import numpy as np
import pytest

from pipeline import score
from pipeline.manifest import Clip, Event, Manifest
from pipeline.predictions import Predictions

CLASSES = tuple(f"class {n:02d}" for n in range(28))
# The worked example A1 of AVE accuracy: background for three segments, then class 5.
GATE = [-1, 0.2, 0.0, 1, 1, 1, -0.1, 1, 1, 1]


def manifest(folder):
    event = Event(CLASSES[5], "both", 3.0, 10.0)
    clips = [Clip(name, name, None, 10.0, name[:4].rstrip("0"), (CLASSES[5],), (event,)) for name in ("val0", "test1")]
    made = Manifest("ave", tuple(clips), CLASSES, {"annotations": {"Annotations.txt": {"sha256": "ab"}}})
    made.save(folder / "manifest.parquet")
    return made


def predictions(folder, made, winner=5, seed=0, gate=GATE, name="p.npz", clips=slice(None), **facts):
    category = np.zeros((2, 28), dtype=np.float32)
    category[:, winner] = 1
    arrays = {"gate": np.array([gate, gate], dtype=np.float32), "category": category}
    known = {
        "model": "cmbs", "setting": "supervised", "task": "ave", "gate_is": "logits", "seed": seed,
        "dataset": made.dataset, "manifest": made.digest, "features": {}, "labels": None, "coverage": {},
        "recipe": {"published": {"accuracy": 79.3}}, "best": {"best-validation": 3, "best-test": 4},
    }  # fmt: skip
    splits = np.array([clip.split for clip in made.clips])
    arrays = {name: values[clips] for name, values in arrays.items()}
    both = {"best-validation": arrays, "best-test": arrays}
    Predictions(np.array(made.ids)[clips], splits[clips], both, known | facts).save(folder / name)
    return str(folder / name)


def run(folder, *files, more=()):
    files = ["--predictions", *files]
    return score.main(["--manifest", str(folder / "manifest.parquet"), *files, "--out", str(folder / "s.json"), *more])


def test_recomputes_the_worked_example(tmp_path):
    assert run(tmp_path, predictions(tmp_path, manifest(tmp_path))) == 0
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["runs"][0]["scores"]["best-validation"]["test"]["accuracy"] == pytest.approx(80.0)
    assert result["references"]["test"]["always background"] == pytest.approx(30.0)
    assert result["annotations"] == {"Annotations.txt": {"sha256": "ab"}}
    assert result["published"] == {"accuracy": 79.3}
    assert result["summary"]["best-test"]["test"] == {"mean": pytest.approx(80.0), "spread": None, "runs": 1}


def test_seeds_are_summarised(tmp_path):
    made = manifest(tmp_path)
    files = [predictions(tmp_path, made, winner, seed, name=f"{seed}.npz") for seed, winner in enumerate((5, 9))]
    run(tmp_path, *files)
    summary = json.loads((tmp_path / "s.json").read_text())["summary"]["best-validation"]["test"]
    assert summary == {"mean": pytest.approx(50.0), "spread": pytest.approx(60 / 2**0.5), "runs": 2}


def test_a_seed_counts_once(tmp_path, capsys):
    made = manifest(tmp_path)
    files = [
        predictions(tmp_path, made, name=f"{name}.npz", seed=seed) for name, seed in (("p", 0), ("q", 1), ("r", 0))
    ]
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *files)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "each seed counts once" in told
    assert "seed 0: " in told
    assert "seed 1" not in told
    assert not (tmp_path / "s.json").exists()


def test_seeds_that_were_scored_on_different_clips_have_no_mean(tmp_path, capsys):
    made = manifest(tmp_path)
    with pytest.raises(SystemExit):
        run(tmp_path, predictions(tmp_path, made), predictions(tmp_path, made, name="q.npz", seed=1, clips=slice(1)))
    told = capsys.readouterr().err
    assert "scored on different clips" in told
    assert "p.npz: 1 of val, 1 of test\n" in told
    assert "q.npz: 1 of val\n" in told
    assert "common to all are 1." in told


def test_other_rows_under_the_same_key_are_told(tmp_path, capsys):
    made = manifest(tmp_path)
    contents = ({"features": {"visual": "a"}}, {"features": {"visual": "b"}})
    files = [predictions(tmp_path, made, seed=n, name=f"{n}.npz", content=c) for n, c in enumerate(contents)]
    assert run(tmp_path, *files) == 0
    assert "1.npz: trained on features or labels that were made anew" in capsys.readouterr().err


def test_the_gates_meaning_can_be_switched(tmp_path):
    made = manifest(tmp_path)
    gate = [0.01, 0.02, 0.03, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9]
    file = predictions(tmp_path, made, gate=gate, gate_is="probabilities")
    for flags, expected in (((), 90.0), (("--gate-is", "probabilities-as-logits"), 70.0)):
        run(tmp_path, file, more=flags)
        result = json.loads((tmp_path / "s.json").read_text())
        assert result["runs"][0]["scores"]["best-validation"]["test"]["accuracy"] == pytest.approx(expected)


def test_another_manifest_is_refused(tmp_path, capsys):
    made = manifest(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, predictions(tmp_path, made, manifest="0" * 64))
    assert ended.value.code == 1
    assert "another manifest" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


def test_other_files_are_refused(tmp_path, capsys):
    manifest(tmp_path)
    (tmp_path / "p.npz").write_bytes(b"no archive")
    with pytest.raises(SystemExit):
        run(tmp_path, str(tmp_path / "p.npz"))
    assert "not a file of predictions" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, str(tmp_path / "absent.npz"))
    assert "pipeline.train" in capsys.readouterr().err


def _rewrite(path, change):
    with np.load(path) as file:
        entries = dict(file)
    change(entries)
    np.savez(path, **entries)


def _without(*names):
    return lambda path: _rewrite(path, lambda entries: [entries.pop(name) for name in names])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not a file of predictions"),
        (lambda path: path.write_bytes(path.read_bytes()[:900] + b"?" * 40 + path.read_bytes()[940:]), "not a file"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "not a file of predictions"),
        (lambda path: path.write_bytes(b""), "not a file of predictions"),
        (_without("clip"), "not a file of predictions"),
        (_without("best-validation/gate"), "best-validation has category only"),
        (
            _without(
                *(f"{which}/{name}" for which in ("best-validation", "best-test") for name in ("gate", "category"))
            ),
            "no predictions",
        ),
        (lambda path: _rewrite(path, lambda e: e.update(facts=np.array("{}"))), "no fact model; no fact setting"),
        (lambda path: _rewrite(path, lambda e: e.update(facts=np.array("[1]"))), "no fact model"),
        (lambda path: _rewrite(path, lambda e: e.update(split=e["split"][:1])), "splits of shape (1,)"),
        (
            lambda path: _rewrite(path, lambda e: e.update({"best-test/gate": e["best-test/gate"][:1]})),
            "best-test gate is of shape (1, 10) for 2 clips",
        ),
    ],
)
def test_damaged_predictions_are_told(tmp_path, capsys, damage, says):
    path = tmp_path / "p.npz"
    predictions(tmp_path, manifest(tmp_path))
    damage(path)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, str(path))
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert f"{path}: " in told
    assert says in told
    assert "writes it again" in told


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels": {"audio": "other"}}, "labels is"),
        ({"precision": "bf16"}, "precision is"),
        ({"recipe": {"published": {"accuracy": 79.3}, "epochs": 9}}, "other settings than the first file: epochs"),
    ],
)
def test_only_repeats_of_one_experiment_are_summarised(tmp_path, capsys, changed, says):
    made = manifest(tmp_path)
    files = [
        predictions(tmp_path, made),
        predictions(tmp_path, made, seed=1, name="q.npz", **changed),
    ]
    with pytest.raises(SystemExit):
        run(tmp_path, *files)
    assert says in capsys.readouterr().err


def test_the_experiment_is_the_same_for_other_seeds_only(tmp_path):
    made = manifest(tmp_path)

    def experiment(**facts):
        return score.experiment(Predictions.load(predictions(tmp_path, made, **facts)).facts)

    settings = {"epochs": 9, "seed": 0, "published": {}, "features": {"visual": "a"}}
    first = experiment(recipe=settings)
    assert experiment(recipe=settings | {"seed": 7, "features": {"visual": "b"}}, seed=7) == first
    assert experiment(recipe=settings | {"epochs": 8}) != first
    assert experiment(recipe=settings, labels={"audio": "k"}) != first
