"""Nothing in a run folder can break or enter the page."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline import report
from pipeline.manifest import Clip, Event, Manifest
from pipeline.run import write_json
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import fill, spec
from tests.pipeline.reporting.parsed_page import check_self_contained

HOSTILE = '<script>alert("x")</script>&\'$\\frac$'
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
