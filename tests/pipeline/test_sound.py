"""Sound: of a long clip, in a file instead of in memory."""

import numpy as np
import pytest

from pipeline import sound, waveform
from pipeline.media import Media
from tests import media_factory as make


@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_audio_of_a_long_clip_lies_in_a_file_and_is_the_same(tmp_path, monkeypatch, start_s):
    path = make.numbered(tmp_path / "a.mp4", duration_s=3.0, rate_hz=44_100, channels=2)
    calls = [(None, False), (None, True), (16_000, True), (16_000, False), (48_000, True)]
    with Media(path, start_s, 2.0) as media:
        expected = [media.audio(rate_hz, mono) for rate_hz, mono in calls]
    monkeypatch.setattr(sound, "_LONG_S", 1.0)
    monkeypatch.setattr(waveform, "_STREAMED", 10_001)  # several pieces, none of them round
    with Media(path, start_s, 2.0) as media:
        for (rate_hz, mono), wave in zip(calls, expected, strict=True):
            found = media.audio(rate_hz, mono)
            assert isinstance(found, np.memmap)
            assert found.shape == wave.shape
            np.testing.assert_allclose(found, wave, atol=1e-6)
