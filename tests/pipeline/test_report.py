"""The report: what it says equals what the run folder holds, and nothing in a run folder can break or enter it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline import report, score
from pipeline.manifest import Clip, Event, Manifest
from pipeline.predictions import Predictions
from pipeline.reporting import clips, coverage, curves, decisions, gather, provenance, scores, sound, thumbnails, values
from pipeline.run import write_json
from pipeline.store import FeatureStore
from tests.media_factory import number_image, read_number, tone, write_media

CLASSES = ("bell", "drum", "bird")
HOSTILE = '<script>alert("x")</script>&\'$\\frac$'


def spec(weights: str = "sha256:" + "0" * 64, modality: str = "audio") -> FeatureSpec:
    return FeatureSpec(
        encoder="vggish" if modality == "audio" else "vgg19",
        recipe="default",
        modality=modality,
        layer="embedding",
        preprocess=("log mel, 64 bands",),
        postprocess=(),
        grid=Grid(1.0, 1.0, 10),
        sampler=FrameSampler() if modality == "visual" else None,
        shape=(4,),
        weights=weights,
    )


def demo_manifest(count: int = 24, classes: tuple[str, ...] = CLASSES) -> Manifest:
    """Clips of 10 s; clip i has the event i mod 3 from second 2 to second 6."""
    made = tuple(
        Clip(
            id=f"clip{i:03d}",
            source_id=f"clip{i:03d}",
            duration_s=10.0,
            split=("train", "train", "val", "test")[i % 4],
            labels=(classes[i % 3],),
            events=(Event(classes[i % 3], "both", 2.0, 6.0), Event(classes[i % 3], "audio", 2.0, 8.0)),
        )
        for i in range(count)
    )
    return Manifest("demo", made, classes, {"title": "a demonstration"})


def fill(store: FeatureStore, key: str, outcomes: dict[int, tuple[str, str]], blocks: list[int] | None = None) -> None:
    """Rows for every clip but those with an outcome; only some blocks if asked."""
    rng = np.random.default_rng(0)
    width = store.spec(key).shape
    for block, span in store.blocks(key):
        if blocks is not None and block not in blocks:
            continue
        writer = store.writer(key, block)
        for row in span:
            if row in outcomes:
                writer.fail(row, *outcomes[row])
            else:
                writer.put(row, rng.normal(size=(10, *width)).astype("float32"), Grid(1, 1, 10).segments(10.0))
        writer.commit()


def add_training(folder: Path, manifest: Manifest, model: str, seed: int, errors: float) -> None:
    """A training's files with a share of wrong test segments, and its scores by `pipeline.score`."""
    rng = np.random.default_rng(100 * seed + len(model))
    test = manifest.split("test")
    target = np.stack([np.pad(decisions.truth(clip, "both", 10, CLASSES), ((0, 0), (0, 1))) for clip in test]).astype(
        float
    )
    right = target.argmax(axis=2)
    guess = np.where(rng.random(right.shape) < errors, rng.integers(0, len(CLASSES) + 1, right.shape), right)
    features = {"audio": {"key": spec("random:0").key, "name": "vggish", "weights": "random:0"}}
    facts = {
        "model": model, "setting": "supervised", "task": "ave", "gate_is": "logits", "seed": seed, "features": features,
        "dataset": "demo", "manifest": manifest.digest, "labels": None, "precision": "fp32", "annotations": {},
        "coverage": {"test": {"clips": len(test), "used": len(test), "excluded": {}}},
        "recipe": {"published": {"accuracy": 72.7, "note": "on AVE"}}, "best": {"best-validation": 1},
    }  # fmt: skip
    name = f"{model}-supervised-{seed}"
    run = folder / "train" / name
    run.mkdir(parents=True)
    Predictions(
        np.array([clip.id for clip in test]),
        np.array(["test"] * len(test)),
        {"best-validation": {"scores": np.eye(len(CLASSES) + 1)[guess]}},
        facts,
    ).save(run / "predictions.npz")
    lines = [
        {
            "epoch": epoch,
            "lr": 1e-3,
            "loss": {"total": 2.5 / (epoch + 1)},
            "train_s": 0.5,
            "val": {"accuracy": 50 + epoch},
        }
        for epoch in range(5)
    ]
    write_json(run / "curves.json", lines)
    write_json(run / "train.json", {"stage": "train", "arguments": facts, "versions": {}, "parameters": 1335246})
    scored = ["--predictions", str(run / "predictions.npz"), "--out", str(folder / "scores" / f"{name}.json")]
    assert score.main(["--manifest", str(folder / "manifest.parquet"), *scored]) == 0


# ---- a whole run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every part: two keys (one random), failures, a ledger, three seeds of one model and one of another."""
    folder = tmp_path_factory.mktemp("run")
    manifest = demo_manifest()
    manifest.save(folder / "manifest.parquet")
    trained, random = spec(), spec("random:0", "visual")
    store = FeatureStore.create(folder / "features", manifest, [trained, random])
    fill(
        store,
        trained.key,
        {3: ("no-audio", "clip003.mp4: no audio stream"), 7: ("absent", "no file"), 8: ("absent", "no file")},
    )
    fill(store, random.key, {7: ("absent", "no file")})
    ledger = [
        {"clip": "clip007", "dataset": "demo", "outcome": "transient", "message": "HTTP 503"},
        {"clip": "clip007", "dataset": "demo", "outcome": "removed", "message": "This video has been removed"},
        {"clip": "clip001", "dataset": "demo", "outcome": "ok"},
        {"clip": "clip002", "dataset": "another", "outcome": "private"},
    ]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger) + '{"torn')
    for index in range(2):
        write_json(
            folder / "receipts" / "extract" / f"{index}-of-2.json",
            {
                "stage": "extract",
                "arguments": {"encoders": ["vggish"], "shard": f"{index}/2", "precision": "fp32"},
                "versions": {"numpy": "2.0.0", "torch": f"2.14.{index}"},
                "features": {trained.key: {"outcomes": {"ok": 10, "absent": 1}}},
            },
        )
        benchmark = folder / "benchmarks" / "extract" / f"{index}-of-2.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\th:m:s\tmax_rss\n{60 + index}\t0:01:00\t{700 + index}\n")
    (folder / "benchmarks" / "prepare.tsv").write_text("s\tmax_rss\n2.5\t-\n")
    for seed in range(3):
        add_training(folder, manifest, "avel", seed, 0.4)
    add_training(folder, manifest, "cace_net", 0, 0.1)
    return folder


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    out = run_folder / "report.html"
    assert report.main(["--run", str(run_folder), "--out", str(out), "--clips", "3"]) == 0
    return out.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def check_self_contained(text: str) -> Elements:
    """No element that loads or runs anything; ids are unique."""
    parsed = Elements(text)
    for tag, attributes in parsed.found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
                assert value.startswith(("data:image/", "#")), (tag, value[:80])
            if name == "style":
                assert "url(" not in value.replace("url(#", ""), value
    ids = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    return parsed


def test_page_is_self_contained(page: str) -> None:
    parsed = check_self_contained(page)
    assert "http" not in parsed.words
    tags = {tag for tag, _ in parsed.found}
    assert {"svg", "table", "details", "main"} <= tags
    anchors = {attributes.get("id") for tag, attributes in parsed.found if tag == "section"}
    assert anchors == {"scores", "clips", "coverage", "curves", "values", "ran", "absent"}


def test_same_run_gives_the_same_bytes(run_folder: Path, page: str, tmp_path: Path) -> None:
    report.main(["--run", str(run_folder), "--out", str(tmp_path / "again.html"), "--clips", "3"])
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_random_weights_are_announced_and_only_then(page: str, tmp_path: Path) -> None:
    assert "These numbers mean nothing outside a demonstration: 1 of 2 features" in Elements(page).words
    manifest = demo_manifest(4)
    FeatureStore.create(tmp_path / "features", manifest, [spec()])
    report.main(["--run", str(tmp_path), "--out", str(tmp_path / "r.html")])
    assert 'class="warning"' not in (tmp_path / "r.html").read_text()


def test_coverage_equals_the_store(run_folder: Path, page: str) -> None:
    run = gather.open_run(run_folder)
    store, splits = run.store, {clip.id: clip.split for clip in run.manifest.clips}
    for entry in coverage.coverages(run)[1:]:
        expected: dict[str, dict[str, int]] = {}
        for clip_id, outcome in store.outcomes(entry.title).items():
            counts = expected.setdefault(splits[clip_id], {})
            counts[outcome] = counts.get(outcome, 0) + 1
        assert {bar.split: bar.outcomes for bar in entry.bars} == expected
        reasons = {clip_id: text for failure in entry.failures for clip_id, text in failure.shown}
        assert reasons == store.reasons(entry.title)
    words = Elements(page).words
    assert "clip003.mp4: no audio stream" in words
    assert "21 of 24 clips" in words
    assert "23 of 24 clips" in words


def test_ledger_counts_the_last_attempt_at_each_clip(run_folder: Path) -> None:
    entry = coverage.coverages(gather.open_run(run_folder))[0]
    assert entry.total.outcomes == {"ok": 1, "removed": 1, "pending": 22}
    assert entry.failures[0].shown == (("clip007", "This video has been removed"),)


def test_every_outcome_has_a_colour() -> None:
    from pipeline.outcomes import OUTCOMES

    groups = {outcome: coverage.group(outcome) for outcome in OUTCOMES}
    assert set(groups.values()) == set(coverage.GROUP_MEANING)
    assert groups["removed"] == "not obtained"
    assert groups["decode-error"] == "unusable"


def test_uncommitted_blocks_are_pending(tmp_path: Path) -> None:
    manifest = demo_manifest(300)
    manifest.save(tmp_path / "manifest.parquet")
    store = FeatureStore.create(tmp_path / "features", manifest, [spec()])
    fill(store, spec().key, {}, blocks=[0])
    (entry,) = coverage.coverages(gather.open_run(tmp_path))
    assert entry.total.outcomes == {"ok": 256, "pending": 44}
    (found,) = values.statistics(gather.open_run(tmp_path))
    assert found.of_clips == 256


def test_failures_are_capped_with_a_count(tmp_path: Path) -> None:
    manifest = demo_manifest(200)
    manifest.save(tmp_path / "manifest.parquet")
    store = FeatureStore.create(tmp_path / "features", manifest, [spec()])
    fill(store, spec().key, {row: ("absent", f"no file {row}") for row in range(150)})
    (entry,) = coverage.coverages(gather.open_run(tmp_path))
    (failure,) = entry.failures
    assert failure.count == 150
    assert len(failure.shown) == coverage.SHOWN_FAILURES
    assert failure.shown[0] == ("clip000", "no file 0")


def test_value_statistics(tmp_path: Path) -> None:
    manifest = demo_manifest(3)
    store = FeatureStore.create(tmp_path / "features", manifest, [spec()])
    rng = np.random.default_rng(1)
    arrays = [rng.normal(3.0, 2.0, (10, 4)).astype("float32"), np.zeros((10, 4), dtype="float32")]
    arrays[0][0, 0] = 0.0
    writer = store.writer(spec().key, 0)
    for row, rows in enumerate(arrays):
        writer.put(row, rows, Grid(1, 1, 10).segments(10.0))
    writer.fail(2, "absent", "no file")
    writer.commit()
    found = values.of_key(store, spec().key)
    both = np.concatenate(arrays).astype(np.float64)
    assert (found.clips, found.of_clips, found.rows) == (2, 2, 20)
    assert found.mean == pytest.approx(both.mean())
    assert found.std == pytest.approx(both.std())
    assert (found.low, found.high) == (both.min(), both.max())
    assert found.zeros == pytest.approx(41 / 80)
    assert found.constant_rows == pytest.approx(0.5)
    assert found.bad == 0
    assert values.of_key(store, spec().key, clips=1).clips == 1
    assert values.of_key(store, spec().key, budget=1).clips == 1


def test_provenance_adds_receipts_up(run_folder: Path, page: str) -> None:
    found = provenance.provenance(gather.open_run(run_folder))
    stages = {stage.name: stage for stage in found.stages}
    assert stages["extract"].receipts == 2
    assert list(stages["extract"].arguments.values()) == [2]  # shards differ by design and are one set of arguments
    assert stages["extract"].outcomes == {"ok": 20, "absent": 2}
    assert "torch" in found.mixed
    jobs = {job.rule: job for job in found.jobs}
    assert (jobs["extract"].jobs, jobs["extract"].total_s, jobs["extract"].longest_s) == (2, 121.0, 61.0)
    assert jobs["extract"].memory_mb == 701
    assert jobs["prepare"].memory_mb == 0
    words = Elements(page).words
    assert spec().weights in words
    assert "2 min 01 s" in words


# ---- trained models -------------------------------------------------------------------------------------------------


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
        "references": {"test": {"nothing": {"segment": {"Type": 8.0}, "event": {"Type": 8.0}}}},
        "runs": [{"seed": seed, "scores": {"best-validation": test, "best-test": test}} for seed in (0, 1)],
    }  # fmt: skip
    write_json(tmp_path / "scores" / "han-weak.json", content)
    (found,) = scores.score_tables(gather.open_run(tmp_path))
    assert found.headline == "segment Type"
    assert found.columns[:6] == ["segment A", "segment V", "segment AV", "segment Type", "segment Event", "event A"]
    assert found.groups[0].cell("event Event") == "35.0 ± 0.0"
    assert found.references["nothing"]["segment Type"] == 8.0


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
    facts = {"task": "avvp", "gate_is": "logits"}
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


def test_chosen_clips_show_errors_and_disagreement(run_folder: Path) -> None:
    run = gather.open_run(run_folder)
    decided = list(decisions.all_decisions(run))
    chosen = clips.choose(run, decided, 3)
    assert len({clip.id for clip, _ in chosen}) == 3
    errors = [one.wrong(run.manifest.clips) for one in decided]
    mean = {clip_id: np.mean([error[clip_id] for error in errors]) for clip_id in errors[0]}
    worst, _, best = (clip.id for clip, _ in chosen)
    assert mean[worst] == max(mean.values())
    assert mean[best] == min(share for clip_id, share in mean.items() if clip_id not in (worst, chosen[1][0].id))
    assert [clip.id for clip, _ in clips.choose(run, decided, 3)] == [clip.id for clip, _ in chosen]
    assert "disagree" in chosen[1][1]


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


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_spectrogram_finds_a_tone() -> None:
    time_s = np.arange(32000) / 16000
    wave = np.where(time_s < 1, 0.0, 0.5 * np.sin(2 * np.pi * 1000 * time_s)).astype("float32")
    made = sound.sound(wave, 16000)
    assert made.end_s == 2.0
    late = made.level_db[:, made.level_db.shape[1] * 3 // 4]
    assert made.centres_hz[late.argmax()] == pytest.approx(1000, rel=0.06)
    assert made.level_db[:, 10].max() == -80.0
    assert made.high[made.times_s > 1.1].max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(made.high[made.times_s < 0.9]).max() == 0.0


def test_thumbnails_show_the_middle_of_each_tenth(tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    images = [number_image(number, 320, 180) for number in range(100)]
    write_media(tmp_path / "clip000.mp4", images=images, fps=10, samples=tone(10.0, 16000), rate_hz=16000)
    seen = thumbnails.pictures(demo_manifest(1).clips[0], tmp_path)
    shown = [Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2]))) for one in seen.thumbnails]
    assert [read_number(np.asarray(picture)) for picture in shown] == list(range(5, 100, 10))
    assert [one.time_s for one in seen.thumbnails] == pytest.approx(np.arange(0.5, 10, 1.0))
    assert {(picture.format, picture.width) for picture in shown} == {("JPEG", thumbnails.WIDTH)}
    assert seen.duration_s == 10.0
    assert seen.sound.end_s == pytest.approx(10.0, abs=0.05)
    assert seen.notes == ()


def test_bad_media_becomes_a_sentence(tmp_path: Path) -> None:
    clip = demo_manifest(1).clips[0]
    assert "clip000" in thumbnails.pictures(clip, tmp_path).notes[0]
    (tmp_path / "clip000.mp4").write_bytes(b"this is no video")
    seen = thumbnails.pictures(clip, tmp_path)
    assert seen.thumbnails == ()
    assert seen.notes


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert report.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]) == 0
    words = check_self_contained((tmp_path / "r.html").read_text()).words
    for part in ("manifest.parquet", "features", "scores", "train", "labels"):
        assert part in words


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        report.main(["--run", str(tmp_path / "nowhere"), "--out", str(tmp_path / "r.html")])
    assert raised.value.code == 1
    assert not (tmp_path / "r.html").exists()


BROKEN = {
    "manifest.parquet": b"no parquet",
    "ledger.jsonl": b"\xff\xfe\n[1]\n{}\n",
    "features/zarr.json": b"{",
    "receipts/a.json": b"[1, 2]",
    "receipts/b.json": b'{"stage": 3, "versions": 7, "arguments": {"a": {"b": {}}}}',
    "receipts/c.json": b"[" * 100000,
    "benchmarks/extract/1.tsv": b"s\tmax_rss\nNA\t\x00\n",
    "train/a-b-0/train.json": b'{"arguments": 5}',
    "train/a-b-0/curves.json": b'[1, {"epoch": "x", "loss": {"total": NaN}}]',
    "train/a-b-0/predictions.npz": b"PK\x03\x04 no zip",
    "scores/a-b-0.json": b'{"runs": [{"scores": 5}]}',
    "scores/a-b-1.json": b'{"runs": []}',
    "finetune/curves.jsonl": b'{"epoch": 1e400, "loss": "x"}\n',
}


def test_broken_parts_do_not_stop_the_page(tmp_path: Path) -> None:
    for name, content in BROKEN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert report.main(["--run", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    words = check_self_contained((tmp_path / "r.html").read_text()).words
    for name in (
        "manifest.parquet",
        "features",
        "receipts/a.json",
        "receipts/c.json",
        "scores/a-b-0.json",
        "scores/a-b-1.json",
    ):
        assert f"{name}:" in words, name


def test_damaged_predictions_and_store_are_notes(run_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    (folder / "train" / "cace_net-supervised-0" / "predictions.npz").write_bytes(b"PK\x03\x04 no zip")
    key = spec().key
    (folder / "features" / key / "zarr.json").write_text("{}")
    assert report.main(["--run", str(folder), "--out", str(tmp_path / "r.html"), "--clips", "1"]) == 0
    words = check_self_contained((tmp_path / "r.html").read_text()).words
    assert "cace_net-supervised-0/predictions.npz" in words
    assert f"features/{key}" in words


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    classes = (HOSTILE, "-->", "b\x00\x1b[31m")
    # Ids and labels that `check` refuses: a report must stand what a hand-made file holds.
    made = tuple(
        Clip(id=f"{HOSTILE}{row}", source_id="x", duration_s=10.0, split=HOSTILE, labels=(classes[row],),
             events=(Event(classes[row], "both", 1.0, 3.0),))
        for row in range(3)
    )  # fmt: skip
    Manifest(HOSTILE, made, classes, {"title": HOSTILE}).save(tmp_path / "manifest.parquet")
    manifest = Manifest.load(tmp_path / "manifest.parquet")
    store = FeatureStore.create(tmp_path / "features", manifest, [spec()])
    fill(store, spec().key, {0: ("absent", HOSTILE)})
    (tmp_path / "media").mkdir()
    write_json(
        tmp_path / "receipts" / "a.json",
        {"stage": HOSTILE, "arguments": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}},
    )
    scored = {"main": 1, "accuracy": 50.0, HOSTILE: 4.0}
    content = {
        "model": HOSTILE, "setting": HOSTILE, "task": "ave",
        "features": {HOSTILE: {"key": HOSTILE, "weights": "random"}},
        "published": HOSTILE, "references": {"test": {HOSTILE: 3.0}},
        "runs": [{"seed": HOSTILE, "scores": {"best-validation": {"test": scored}}}],
    }  # fmt: skip
    write_json(tmp_path / "scores" / "x.json", content)
    write_json(tmp_path / "train" / "x" / "curves.json", [{"epoch": 0, HOSTILE: 2.0}, {"epoch": 1, HOSTILE: 1.0}])
    assert report.main(["--run", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    parsed = check_self_contained(text)
    assert "<script" not in text
    assert parsed.words.count("alert") >= 10
    assert "\x00" not in text
    assert {"scores", "clips", "coverage", "curves", "ran"} <= {a.get("id") for t, a in parsed.found if t == "section"}


def test_many_clips_do_not_make_a_long_page(tmp_path: Path) -> None:
    """The page of 20,000 clips, most of them failed, is about as long as that of 200."""
    sizes = []
    for count in (200, 20000):
        folder = tmp_path / str(count)
        manifest = demo_manifest(count)
        manifest.save(folder / "manifest.parquet")
        store = FeatureStore.create(folder / "features", manifest, [spec()])
        fill(store, spec().key, {row: ("absent", "no file") for row in range(count) if row % 50}, blocks=[0])
        report.main(["--run", str(folder), "--out", str(folder / "r.html"), "--clips", "1"])
        sizes.append((folder / "r.html").stat().st_size)
    assert sizes[1] < 1.1 * sizes[0]


def test_help_ends_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        report.main(["--help"])
    assert raised.value.code == 0
    assert "python -m pipeline.report --run" in capsys.readouterr().out.strip().splitlines()[-1]
