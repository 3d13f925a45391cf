"""The page: one file that needs nothing else, the same for the same run, with a warning where one is due."""

from __future__ import annotations

from pathlib import Path

from pipeline import report
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import demo_manifest, spec
from tests.pipeline.reporting.parsed_page import Elements, check_self_contained


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


def test_media_given_from_elsewhere_are_not_said_to_be_absent(tmp_path: Path) -> None:
    for name in ("run", "clips"):
        (tmp_path / name).mkdir()
    run, out = str(tmp_path / "run"), tmp_path / "r.html"
    report.main(["--run", run, "--out", str(out)])
    assert "<code>media</code>" in out.read_text()
    report.main(["--run", run, "--out", str(out), "--media", str(tmp_path / "clips")])
    assert "<code>media</code>" not in out.read_text()
