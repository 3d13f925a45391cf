"""The pictures of a clip, and what is said where there are none."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting import thumbnails
from tests.media_factory import number_image, read_number, tone, write_media
from tests.pipeline.report_factory import demo_manifest


def test_thumbnails_show_the_middle_of_each_tenth(tmp_path: Path) -> None:
    images = [number_image(number, 320, 180) for number in range(100)]
    write_media(tmp_path / "clip000.mp4", images=images, fps=10, samples=tone(10.0, 16000), rate_hz=16000)
    seen = thumbnails.pictures(demo_manifest(1).clips[0], tmp_path)
    shown = [Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2]))) for one in seen.thumbnails]
    assert [read_number(np.asarray(picture)) for picture in shown] == list(range(5, 100, 10))
    assert [one.time_s for one in seen.thumbnails] == pytest.approx(np.arange(0.5, 10, 1.0))
    assert {(picture.format, picture.width) for picture in shown} == {("JPEG", thumbnails.WIDTH)}
    assert seen.duration_s == 10.0
    assert seen.sound.end_s == pytest.approx(10.0, abs=0.05)
    assert seen.notes == ()


def test_bad_media_becomes_a_sentence(tmp_path: Path) -> None:
    clip = demo_manifest(1).clips[0]
    assert "clip000" in thumbnails.pictures(clip, tmp_path).notes[0]
    (tmp_path / "clip000.mp4").write_bytes(b"this is no video")
    seen = thumbnails.pictures(clip, tmp_path)
    assert seen.thumbnails == ()
    assert seen.notes
