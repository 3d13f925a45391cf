"""What fine-tuning changed: pairing of seeds, verdicts, the probe, and what is missing."""

import dataclasses
import json

import numpy as np
import pytest

from pipeline import effect
from pipeline.finetuning.effect import Row, effects, model_rows, retrieval_rows
from pipeline.finetuning.probe import probe
from pipeline.manifest import Clip, Event, Manifest
from pipeline.reporting.gather import open_run
from pipeline.reporting.page import render
from pipeline.store import FeatureStore
from tests.pipeline.store_factory import spec

TUNED = {0: "a" * 64, 1: "b" * 64, 2: "c" * 64}
CLASSES = ("Bell", "Dog")


def receipt(manifest, seed, tune="all", recall=50.0):
    way = {"R@1": recall, "R@5": 90.0}
    both = {"visual to audio": way, "audio to visual": way}
    return {
        "stage": "finetune",
        "arguments": {
            "visual": "clip-tiny", "weights": "random:0", "audio": {"key": "k", "name": "clap-tiny"}, "seed": seed,
            "manifest": manifest.digest, "recipe": {"loss": "symmetric", "tune": tune},
            "clips": {"train": 8, "validation": 4, "excluded": {"audio: absent": 1}},
        },
        "before": {name: {"R@1": 10.0, "R@5": 20.0} for name in both},
        "best": {"epoch": 3, "retrieval": both}, "epochs": 4, "stopped_early": False, "history": [],
        "refused": {"clips": {}, "counts": {}}, "weights": {"sha256": TUNED[seed]},
    }  # fmt: skip


def score(key, seed, value, model="avel"):
    return {
        "stage": "score", "model": model, "setting": "supervised", "task": "ave",
        "features": {"visual": {"key": key}, "audio": {"key": "sound"}},
        "runs": [{"seed": seed, "scores": {"best-validation": {"test": {"main": value}}}}],
    }  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A store in which the tuned feature shows the class and the untuned one is noise."""
    clips = []
    for row in range(18):
        label, split = CLASSES[row % 2], ("train", "train", "train", "train", "val", "test")[row // 3]
        name = f"clip-{row:02d}"
        clips.append(Clip(name, name, None, 10.0, split, (label,), (Event(label, "both", 2.0, 8.0),)))
    manifest = Manifest("demo", tuple(clips), CLASSES)
    manifest.save(tmp_path / "manifest.parquet")
    made = ["random:0", *(f"sha256:{digest}" for digest in TUNED.values())]
    specs = [spec("clip-tiny", (3,), recipe="default", modality="visual", weights=weights) for weights in made]
    store, rng = FeatureStore.create(tmp_path / "features", manifest, specs), np.random.default_rng(0)
    for entry in specs:
        writer = store.writer(entry.key, 0)
        for row in range(18):
            values = rng.normal(0, 0.1, (10, 3)).astype(np.float32)
            if entry.weights != "random:0":
                values[2:8, row % 2] += 3
            writer.put(row, values, entry.grid.segments(10.0))
        writer.commit()
    return tmp_path, manifest, store, specs


def test_the_probe_finds_what_is_there(place):
    _, manifest, store, specs = place
    noise, shown = (probe(manifest, store, entry.key, [0, 1]) for entry in specs[:2])
    assert min(shown) > 95
    assert max(noise) < 75  # always an event: 60 %
    assert probe(manifest, store, specs[0].key, [1, 0]) == noise[::-1]


def test_a_gain_counts_if_every_seed_agrees():
    same = {0: 50.0, 1: 60.0, 2: 55.0}

    def after(*gains):
        return Row("x", same, {seed: same[seed] + gain for seed, gain in enumerate(gains)})

    assert after(3, 4, 5).verdict == "better"
    assert after(-3, -4, -5).verdict == "worse"
    assert after(3, 4, -1).verdict == "no difference established"
    assert after(0, 4, 4).verdict == "no difference established"
    assert after(1, 1, 30).verdict == "no difference established"
    assert after(-0.8, -0.8, -0.8).verdict == "no difference established"
    assert Row("x", same, {0: 99.0}).verdict == "1 seed: nothing follows"
    assert Row("x", {1: 1.0, 2: 2.0}, {2: 5.0, 1: 3.0, 7: 0.0}).gains == [2.0, 3.0]


def test_the_frozen_encoder_is_the_before_of_retrieval(place):
    _, manifest, *_ = place
    tuned = [receipt(manifest, seed) for seed in (0, 1)]
    (alone,) = effects(tuned)
    assert retrieval_rows(alone)[0].before == {0: 10.0, 1: 10.0}
    assert "random projections" in retrieval_rows(alone)[0].note
    (both,) = effects([*tuned, *(receipt(manifest, seed, "projections", 45.0) for seed in (0, 1))])
    assert retrieval_rows(both)[0].gains == [5.0, 5.0]
    assert both.tuned_weights == {f"sha256:{TUNED[seed]}": seed for seed in (0, 1)}
    with pytest.raises(ValueError, match="none of these receipts"):
        effects([receipt(manifest, 0, "projections")])


def test_models_are_paired_by_what_else_they_read():
    scores = [score("old", 0, 70.0), score("new", 0, 75.0), score("old", 1, 60.0), score("other", 0, 1.0)]
    different = score("new", 1, 99.0)
    different["features"]["audio"]["key"] = "another sound"
    (row,) = model_rows(effects([receipt(Manifest("demo", (), ()), 0)])[0], "old", {"new": 0}, [*scores, different])
    assert row.gains == [5.0]
    assert row.note == "audio sound"
    untested = score("new", 0, 75.0)
    untested["runs"][0]["scores"]["best-validation"] = {"val": {"main": 75.0}}
    with pytest.raises(ValueError, match="scores of avel, supervised, seed 0 are of no test clips"):
        model_rows(effects([receipt(Manifest("demo", (), ()), 0)])[0], "old", {"new": 0}, [untested])


def test_the_command_writes_what_the_report_shows(place, capsys):
    folder, manifest, _, specs = place
    paths = []
    for seed in TUNED:
        path = folder / "finetune" / f"clip-tiny-{seed}" / "finetune.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(receipt(manifest, seed)))
        paths.append(str(path))
    scores = []
    for seed in TUNED:
        for entry, value in ((specs[0], 70.0), (specs[seed + 1], 72.0 + seed / 2)):
            scores.append(folder / f"{entry.key}-{seed}.json")
            scores[-1].write_text(json.dumps(score(entry.key, seed, value)))
    flags = ["--manifest", f"{folder}/manifest.parquet", "--store", f"{folder}/features", "--out"]
    more = ["--tuning", *paths, "--scores", *map(str, scores)]
    assert effect.main([*flags, f"{folder}/effect.json", *more]) == 0
    (made,) = json.loads((folder / "effect.json").read_text())["effects"]
    rows = {row["measure"]: row for row in made["rows"]}
    assert rows["AVE accuracy of avel, supervised"]["gains"] == [2.0, 2.5, 3.0]
    assert rows["AVE accuracy of avel, supervised"]["verdict"] == "better"
    assert rows["AVE accuracy of a linear probe"]["verdict"] == "better"
    assert "AVE accuracy of avel, supervised" in capsys.readouterr().out
    page = render(open_run(folder), 0)
    assert "clip-tiny against clap-tiny, seeds 0, 1, 2" in page
    assert "+2.5 ± 0.5" in page
    assert "left out: 1 x audio: absent" in page

    with pytest.raises(SystemExit):
        effect.main([*flags, f"{folder}/e.json", "--tuning", paths[0], "--probe-seeds", "0", "--store", f"{folder}/x"])
    (folder / "other.json").write_text(json.dumps(receipt(manifest, 0) | {"weights": {"sha256": "d" * 64}}))
    with pytest.raises(SystemExit):
        effect.main([*flags, f"{folder}/e.json", "--tuning", f"{folder}/other.json"])
    assert "no clip-tiny made with sha256:dddd" in capsys.readouterr().err


def test_other_files_than_receipts_are_told_all_at_once(place, capsys):
    folder, manifest, *_ = place
    contents = {"train": {"stage": "train", "arguments": {}}, "list": [1], "plain": {}, "tuning": receipt(manifest, 0)}
    paths = {name: folder / f"{name}.json" for name in (*contents, "torn", "absent")}
    for name, content in contents.items():
        paths[name].write_text(json.dumps(content))
    paths["torn"].write_text('{"stage": "fine')
    flags = ["--manifest", f"{folder}/manifest.parquet", "--store", f"{folder}/features", "--out", f"{folder}/e.json"]

    def told(*more):
        with pytest.raises(SystemExit) as ended:
            effect.main([*flags, *map(str, more)])
        assert ended.value.code == 1
        return capsys.readouterr().err

    found = told("--tuning", *(paths[name] for name in ("train", "list", "plain", "torn", "absent")))
    assert f"{paths['train']}: made by train" in found
    assert f"{paths['list']}: made by nothing known" in found
    assert f"{paths['plain']}: made by nothing known" in found
    assert f"{paths['torn']}: unreadable" in found
    assert f"{paths['absent']}: unreadable" in found
    found = told("--tuning", paths["tuning"], "--scores", paths["train"], paths["tuning"])
    assert f"{paths['tuning']}: made by finetune" in found
    assert "--scores takes JSON files of `python -m pipeline.score`" in found


def test_several_tunings_seen_by_one_training_seed_are_not_mixed_up():
    tuned = {"new0": 0, "new1": 1, "new2": 2}
    one = [score("old", 0, 80.0), *(score(key, 0, value) for key, value in zip(tuned, (70.0, 71.0, 90.0), strict=True))]
    (row,) = model_rows(effects([receipt(Manifest("demo", (), ()), 0)])[0], "old", tuned, one)
    assert (row.before, row.after) == ({0: 80.0, 1: 80.0, 2: 80.0}, {0: 70.0, 1: 71.0, 2: 90.0})
    assert row.verdict == "no difference established"
    several = [score(key, seed, 60.0 + seed) for key in ("old", *tuned) for seed in range(3)]
    (row,) = model_rows(effects([receipt(Manifest("demo", (), ()), 0)])[0], "old", tuned, several)
    assert row.before == row.after == {0: 61.0, 1: 61.0, 2: 61.0}


def test_without_audio_visual_events_there_is_no_probe(place, capsys):
    folder, manifest, store, specs = place
    silent = [dataclasses.replace(clip, events=()) for clip in manifest.clips]
    weak = dataclasses.replace(manifest, clips=tuple(silent))
    weak.save(folder / "weak.parquet")
    made = FeatureStore.create(folder / "weak", weak, specs)
    for entry in specs:
        for block, span in made.blocks(entry.key):
            writer = made.writer(entry.key, block)
            for row in span:
                writer.put(row, store.read(weak.ids[row], entry.key), entry.grid.segments(10.0))
            writer.commit()
    (folder / "weak.json").write_text(json.dumps(receipt(weak, 0)))
    options = ["--manifest", "weak.parquet", "--store", "weak", "--tuning", "weak.json", "--out", "effect.json"]
    assert effect.main([part if part.startswith("--") else str(folder / part) for part in options]) == 0
    (entry,) = json.loads((folder / "effect.json").read_text())["effects"]
    assert not any("probe" in row["measure"] for row in entry["rows"])
    assert "no linear probe" in capsys.readouterr().err
