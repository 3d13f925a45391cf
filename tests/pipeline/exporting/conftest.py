"""Shared by the tests of the layouts: the small store that they export."""

from pathlib import Path

import pytest

from tests.pipeline.export_factory import demo_store


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return demo_store(tmp_path)
