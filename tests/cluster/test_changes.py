"""Edits of the configuration and of the clips do only what changed, and a dry run says so first."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.manifest import Manifest
from tests.media_factory import tone, write_media

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def add_clip(media: Path, name: str) -> None:
    samples = tone(2.0, 16_000, 1, 200.0 + 10 * ord(name[0]))
    write_media(media / f"{name}.wav", samples=samples, rate_hz=16_000, audio_codec="pcm_s16le")


def snakemake(folder: Path, *arguments: str, encoders: tuple[str, ...] = ("vggish",), workers: int = 0) -> str:
    config = {
        "run": "run",
        "job_clips": 2,
        "workers": workers,
        "datasets": {"folder": {"media": "media", "encoders": list(encoders), "weights": "random:0"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    ran = subprocess.run(
        [*command, "--configfile", "config.yaml", *arguments], cwd=folder, capture_output=True, text=True, timeout=900
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def planned(text: str) -> dict[str, int]:
    """Rule -> number of jobs that a dry run announces."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.MULTILINE) if name != "total"}


def commits(folder: Path) -> dict[str, int]:
    found = (folder / "run" / "folder" / "features" / "commits").glob("*/*.json")
    return {f"{path.parent.name.split('.')[1]}/{path.stem}": path.stat().st_mtime_ns for path in found}


def test_only_what_changed(tmp_path):
    (tmp_path / "media").mkdir()
    for name in "mno":
        add_clip(tmp_path / "media", name)
    assert planned(snakemake(tmp_path, "-n", "-q", "rules"))["extract"] == 2
    snakemake(tmp_path)
    first = commits(tmp_path)
    assert sorted(first) == ["default/000000", "default/000001"]
    assert planned(snakemake(tmp_path, "-n", "-q", "rules")) == {}

    # How wide a job runs is no reason to run it again.
    assert planned(snakemake(tmp_path, "-n", "-q", "rules", workers=1)) == {}

    # Another encoder: both jobs run and make its blocks; the first encoder's stay as they are.
    both = ("vggish", "vggish:preactivation")
    assert planned(snakemake(tmp_path, "-n", "-q", "rules", encoders=both))["extract"] == 2
    snakemake(tmp_path, encoders=both)
    second = commits(tmp_path)
    assert {name: second[name] for name in first} == first
    assert sorted(set(second) - set(first)) == ["preactivation/000000", "preactivation/000001"]

    # Two more clips, one of which sorts before the others: the job that was half full and one new job, not the first.
    add_clip(tmp_path / "media", "z")
    add_clip(tmp_path / "media", "a")
    shown = snakemake(tmp_path, "-n", encoders=both)
    assert planned(shown)["prepare"] == 1
    assert sorted(re.findall(r"output: run/folder/receipts/extract/(\d+)\.json", shown)) == ["1", "2"]
    snakemake(tmp_path, encoders=both)
    third = commits(tmp_path)
    assert len(third) == 6
    for name in ("default/000000", "preactivation/000000"):
        assert third[name] == second[name]
    assert Manifest.load(tmp_path / "run" / "folder" / "manifest.parquet").ids == ("m", "n", "o", "a", "z")
    assert planned(snakemake(tmp_path, "-n", "-q", "rules", encoders=both)) == {}
