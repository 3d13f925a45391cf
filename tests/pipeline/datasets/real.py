"""Where the published annotation files lie, and how to get a copy of them that a test may spoil."""

import shutil
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def folder(name: str) -> Path:
    """A folder of published files; the test is skipped where they are absent."""
    if not (DATA / name).is_dir():
        pytest.skip(f"the published annotation files of {name} are not at ../shared/data/{name}")
    return DATA / name


def spoiled(name: str, target: Path, file: str, change) -> Path:
    """A copy of a folder in which `change(lines) -> lines` was applied to the lines of one file."""
    target.mkdir()
    for path in folder(name).iterdir():
        if path.is_file() and path.stat().st_size < 2_000_000:
            shutil.copy(path, target / path.name)
    path = target / file
    path.chmod(0o644)
    path.write_bytes(b"\n".join(change(path.read_bytes().split(b"\n"))))
    return target
