"""The graph itself: the real datasets plan as shard jobs, and a misspelt key is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def snakemake(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)


def configuration(folder: Path, **values) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"run": "run", "datasets": {}, **values}))
    return str(path)


def test_the_three_datasets_are_107_extract_jobs(tmp_path):
    entries = {name: {"encoders": ["vgg19", "vggish"], "annotations": "a"} for name in ("ave", "llp", "unav100")}
    config = configuration(tmp_path, datasets=entries)
    ran = snakemake("-n", "-q", "rules", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    counts = dict(re.findall(r"^(\w+)\s+(\d+)$", ran.stdout + ran.stderr, re.MULTILINE))
    # ceil(4143 / 256) + ceil(11849 / 256) + ceil(10790 / 256)
    assert int(counts["extract"]) == 17 + 47 + 43
    assert counts["prepare"] == "3"


def test_a_misspelt_key_is_refused_by_name(tmp_path):
    config = configuration(tmp_path, datasets={"ave": {"encoder": ["vgg19"]}})
    ran = snakemake("-n", "--configfile", config, folder=tmp_path)
    assert ran.returncode != 0
    assert "encoder" in ran.stderr + ran.stdout


@pytest.mark.slow
def test_snakemake_finds_nothing_to_say_against_the_rules(tmp_path):
    config = configuration(tmp_path, datasets={"demo": {"encoders": ["vgg19"]}})
    ran = snakemake("--lint", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
