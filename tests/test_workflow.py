"""The graph itself: the real datasets plan as shard jobs, and a misspelt key is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.bill import bill
from pipeline.configuration import read
from tests.pipeline import store_factory as factory

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


def test_exports_are_given_media_and_features_with_their_weights(tmp_path):
    tuned = "run/ave/finetune/r-0/resnet50.safetensors"
    entries = {
        "encoders": ["resnet50", "vggish"], "annotations": "a", "media": "my clips",
        "finetune": [{"name": "r", "visual": "resnet50", "audio": "vggish"}],
        "export": [
            "dgsct", {"format": "ave-h5", "features": {"visual": "resnet50", "audio": "vggish"}},
            {"format": "webdataset", "features": {"visual": f"resnet50={tuned}"}},
        ],
    }  # fmt: skip
    ran = snakemake("-n", "-p", "--configfile", configuration(tmp_path, datasets={"ave": entries}), folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    commands = re.findall(r"python -m pipeline\.export (.*)", ran.stdout + ran.stderr)
    flags = {re.search(r"--format (\S+)", each)[1]: each for each in commands}
    assert "--media 'my clips'" in flags["dgsct"]
    assert "--feature 'audio=vggish' --feature 'visual=resnet50=pretrained'" in flags["ave-h5"]
    assert f"--feature 'visual=resnet50={tuned}'" in flags["webdataset"]
    assert all("--media" not in flags[name] for name in ("ave-h5", "webdataset"))


def test_the_plan_counts_the_jobs_that_snakemake_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(ROOT / "workflows" / "config" / "demo.yaml")
    ran = snakemake("-n", "-q", "rules", "--configfile", path, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", ran.stdout + ran.stderr, re.MULTILINE))
    jobs = {rule: int(count) for rule, count in counts.items() if rule not in ("all", "total")}
    assert bill("demo", read(path), {}).jobs == jobs


def planned(text: str) -> set[str]:
    """Rules of the jobs that a dry run announces."""
    return set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE)) - {"all", "total"}


def test_files_that_a_job_reads_count_by_their_content_and_where_it_runs_does_not(tmp_path):
    files = {
        "a/Annotations.txt": "x", "vgg.pth": "x", "vggish.pth": "x", "prompts.tsv": "x", "thresholds.json": "x",
        "tune.yaml": "epochs: 1", "base.yaml": "epochs: 1\nsettings: {supervised: {batch: 8}, weak: {batch: 8}}",
        "model.yaml": "base: base.yaml", "first.pth": "x",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    entries = {
        "encoders": ["vgg19", "vggish"], "weights": ["vgg19=vgg.pth", "vggish=vggish.pth"], "annotations": "a",
        "train": [{"model": "avel", "config": "model.yaml", "visual": "vgg19", "audio": "vggish"}],
        "pseudolabel": {"teachers": ["vggish"], "prompts": "prompts.tsv", "thresholds": "thresholds.json"},
        "finetune": [
            {"name": "r", "visual": "vgg19", "audio": "vggish", "recipe": "tune.yaml", "weights": "first.pth"}
        ],
    }  # fmt: skip
    made = (
        "receipts/extract/0.json", "receipts/extract-tuned/r-0/0.json", "receipts/pseudolabel.json", "effect.json",
        "finetune/r-0/finetune.json", "train/avel-supervised-0/train.json", "scores/avel-supervised-0.json",
        "report.html",
    )  # fmt: skip
    factory.manifest(3).save(tmp_path / "run" / "ave" / "manifest.parquet")
    for name in made:
        path = tmp_path / "run" / "ave" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def dry(**changes) -> set[str]:
        config = configuration(tmp_path, datasets={"ave": entries}, **changes)
        ran = snakemake("-n", "-q", "rules", "--configfile", config, folder=tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return planned(ran.stdout + ran.stderr)

    def changed(**edits: str) -> set[str]:
        """What a dry run says after edits of files, which are then undone."""
        paths = {path: path.read_text() for name in edits for path in tmp_path.glob(f"**/{name}.*") if path.is_file()}
        for path in paths:
            path.write_text(edits[path.stem])
        found = dry()
        for path, text in paths.items():
            path.write_text(text)
        return found

    config = configuration(tmp_path, datasets={"ave": entries})
    ran = snakemake("--touch", "--forceall", "--cores", "1", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # Neither a remark, nor another setting's values, nor the place.
    (tmp_path / "base.yaml").write_text(files["base.yaml"].replace("8}}", "9}}  # a remark"))
    assert dry(device="cuda", workers=3) == set()
    after = {"score", "effect", "report"}
    assert changed(base="settings: {supervised: {batch: 9}}", prompts="y") == {"train", "pseudolabel"} | after
    assert changed(thresholds="y", tune="epochs: 2") == {"pseudolabel", "finetune", "extract_tuned", "effect", "report"}
    assert "finetune" in changed(first="y")
    assert "extract" in changed(vggish="y")
    assert "prepare" in changed(Annotations="y")


@pytest.mark.parametrize("profile", sorted(path.name for path in (ROOT / "workflows" / "profiles").iterdir()))
def test_profiles_let_one_dataset_download_at_a_time(profile):
    asked = yaml.safe_load((ROOT / "workflows" / "profiles" / profile / "config.yaml").read_text())
    assert "downloads=1" in asked["resources"]


def test_downloads_are_counted_and_own_files_are_not(tmp_path):
    sources = {"ave": "folder", "llp": "youtube", "unav100": "http"}
    entries = {
        name: {"encoders": ["vggish"], "annotations": "a", "acquire": {"source": source, "from": "x"}}
        for name, source in sources.items()
    }
    targets = [f"run/{name}/receipts/acquire.json" for name in entries]
    ran = snakemake("-n", *targets, "--configfile", configuration(tmp_path, datasets=entries), folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs = re.split(r"\n(?=\[|(?:local)?rule )", ran.stdout + ran.stderr)
    acquired = [job for job in jobs if job.startswith("rule acquire:")]
    found = {re.search(r"dataset=(\w+)", job)[1]: re.search(r"downloads=(\d)", job)[1] for job in acquired}
    assert found == {"ave": "0", "llp": "1", "unav100": "1"}


@pytest.mark.slow
def test_snakemake_finds_nothing_to_say_against_the_rules(tmp_path):
    config = configuration(tmp_path, datasets={"demo": {"encoders": ["vgg19"]}})
    ran = snakemake("--lint", "--configfile", config, folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
