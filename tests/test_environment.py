"""The three places that say what to install agree, and `make clean` leaves people's runs alone."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def pins() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", LOCK, re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return found


def wanted() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(entry) for entries in lists for entry in entries]


@pytest.mark.parametrize("requirement", wanted(), ids=lambda requirement: requirement.name)
def test_the_lock_pins_what_the_project_wants(requirement):
    versions = pins().get(requirement.name.lower())
    assert versions, f"{requirement.name} is not in requirements.lock; run `make lock`"
    assert all(requirement.specifier.contains(version) for version in versions)


def test_every_pin_has_a_hash_and_no_address():
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.strip())
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)
    assert "://" not in LOCK


def test_conda_asks_for_the_same_python_and_the_lock():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (python,) = [entry for entry in plain if entry.startswith("python")]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--require-hashes", "-r requirements.lock"]


def test_clean_removes_the_demo_and_no_run_of_yours(tmp_path):
    kept = {"runs/real/ave", ".snakemake/metadata"}
    for name in {"runs/demo/demo", ".ruff_cache", *kept}:
        (tmp_path / name).mkdir(parents=True)
    subprocess.run(["make", "-f", ROOT / "Makefile", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not any(path.iterdir())}
    assert left == kept


def test_the_torch_trio_is_the_one_that_imports_together():
    assert (pins()["torch"], pins()["torchvision"], pins()["torchaudio"]) == ({"2.14.1"}, {"0.29.1"}, {"2.11.0"})
