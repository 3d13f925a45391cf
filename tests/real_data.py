"""Where the real public data is, for tests that want it: beside the project, never inside it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder(name: str) -> Path:
    """A folder of the real data; skips the test when it is not there."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"real data not there: shared/data/{name} beside the project")
    return FOLDER / name


def clip_file(name: str) -> Path:
    """A real clip; skips the test when it is not there."""
    path = FOLDER / "clips" / name
    if not path.is_file():
        pytest.skip(f"real clip not there: shared/data/clips/{name} beside the project")
    return path
