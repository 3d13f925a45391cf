"""Coverage equals what the store and the ledger hold."""

from __future__ import annotations

from pathlib import Path

from pipeline.outcomes import OUTCOMES
from pipeline.reporting import coverage, gather, values
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import demo_manifest, fill, spec
from tests.pipeline.reporting.parsed_page import Elements


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
