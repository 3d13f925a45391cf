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


def test_a_tuned_encoder_extracts_beside_the_old_one_and_is_trained_on_by_its_weights(tmp_path):
    entries = {
        "encoders": ["resnet50", "vggish"], "annotations": "a",
        "finetune": [{"name": "r", "visual": "resnet50", "audio": "vggish", "seeds": [3, 4]}],
        "train": [
            {"model": "avel", "visual": "resnet50", "audio": "vggish"},
            {"model": "avel", "name": "after", "tuned": "r", "audio": "vggish", "seeds": [4]},
        ],
    }  # fmt: skip
    config = configuration(tmp_path, datasets={"ave": entries})
    ran = snakemake("-n", "-p", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    commands = re.findall(r"python -m pipeline\.(\w+) (.*)", ran.stdout + ran.stderr)
    tuned = "run/ave/finetune/r-4/resnet50.safetensors"
    extracted = [flags for verb, flags in commands if verb == "extract" and f"--weights 'resnet50={tuned}'" in flags]
    assert len(extracted) == 17
    assert all("--store 'run/ave/features'" in flags for flags in extracted)
    trained = [re.search(r"--visual '(\S+)'", flags)[1] for verb, flags in commands if verb == "train"]
    assert sorted(trained) == sorted(["resnet50=pretrained", f"resnet50={tuned}"])
    assert sum(verb == "effect" for verb, _ in commands) == 1


def test_entries_that_would_share_their_files_are_refused_together(tmp_path):
    settings = {
        "encoders": ["vgg19", "vggish"], "annotations": "a",
        "train": [{"model": "avel", "seeds": [0]}, {"model": "avel", "seeds": [1], "visual": "vgg19"}],
        "finetune": [{"name": "r", "visual": "vgg19", "audio": "vggish", "seeds": [seed]} for seed in (0, 1)],
    }  # fmt: skip
    ran = snakemake("-n", "--configfile", configuration(tmp_path, datasets={"ave": settings}), folder=tmp_path)
    assert ran.returncode != 0
    for words in ("2 entries are avel-supervised", "2 entries are r,", "`name:`"):
        assert words in ran.stderr + ran.stdout


@pytest.mark.slow
def test_snakemake_finds_nothing_to_say_against_the_rules(tmp_path):
    config = configuration(tmp_path, datasets={"demo": {"encoders": ["vgg19"]}})
    ran = snakemake("--lint", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
