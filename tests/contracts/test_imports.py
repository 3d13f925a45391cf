"""Imports point one way; nothing heavy happens when a command only wants to print its help."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERBS = {
    path.stem
    for path in (ROOT / "pipeline").glob("*.py")
    if "\ndef main(" in path.read_text() and path.stem != "__init__"
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_the_walk_sees_the_code():
    assert {"prepare", "extract"} <= VERBS
    assert "extractors.spec" in imports(ROOT / "extractors" / "base.py")


@pytest.mark.parametrize("path", files("extractors"), ids=lambda path: path.name)
def test_extractors_never_import_pipeline(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "pipeline"}


@pytest.mark.parametrize("path", files("pipeline/models") + files("pipeline/metrics"), ids=lambda path: path.name)
def test_models_and_metrics_know_no_store(path):
    known = {"pipeline.models", "pipeline.metrics"}
    ours = {name for name in imports(path) if name.split(".")[0] == "pipeline"}
    assert not {name for name in ours if name != "pipeline" and not any(name.startswith(prefix) for prefix in known)}


@pytest.mark.parametrize("path", files("pipeline"), ids=lambda path: str(path.relative_to(ROOT)))
def test_verbs_are_imported_by_nobody(path):
    verbs = {f"pipeline.{verb}" for verb in VERBS}
    assert not imports(path) & verbs


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_command_explains_itself(verb):
    shown = subprocess.run(
        [sys.executable, "-m", f"pipeline.{verb}", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0, shown.stderr
    assert "example" in shown.stdout.lower()
    assert f"python -m pipeline.{verb}" in shown.stdout
