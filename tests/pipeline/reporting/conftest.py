"""Shared by the tests of the report: one whole run, and the page made of it. Tests read them and change neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import report
from pipeline.run import write_json
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import add_training, demo_manifest, fill, spec


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def page(run_folder: Path) -> str:
    out = run_folder / "report.html"
    assert report.main(["--run", str(run_folder), "--out", str(out), "--clips", "3"]) == 0
    return out.read_text(encoding="utf-8")
