"""What ran: receipts and benchmarks of all shards, added up."""

from __future__ import annotations

from pathlib import Path

from pipeline.reporting import gather, provenance
from tests.pipeline.report_factory import spec
from tests.pipeline.reporting.parsed_page import Elements


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
