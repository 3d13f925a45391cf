"""Shared by the tests of acquisition: one small numbered video, and a clip list."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import media_factory


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at 25 frames/s; frame k shows k; key frames are 50 frames apart, so a stream copy fails."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    return media_factory.numbered(path, duration_s=6, width=160, height=120, keyframe_every=50)
