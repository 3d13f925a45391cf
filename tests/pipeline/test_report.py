"""The report as a command: a page of whatever the folder holds, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import report
from pipeline.store import FeatureStore
from tests.pipeline.report_factory import demo_manifest, fill, spec
from tests.pipeline.reporting.parsed_page import check_self_contained


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
