"""The picture of a clip's sound."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.reporting import sound


def test_spectrogram_finds_a_tone() -> None:
    time_s = np.arange(32000) / 16000
    wave = np.where(time_s < 1, 0.0, 0.5 * np.sin(2 * np.pi * 1000 * time_s)).astype("float32")
    made = sound.sound(wave, 16000)
    assert made.end_s == 2.0
    late = made.level_db[:, made.level_db.shape[1] * 3 // 4]
    assert made.centres_hz[late.argmax()] == pytest.approx(1000, rel=0.06)
    assert made.level_db[:, 10].max() == -80.0
    assert made.high[made.times_s > 1.1].max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(made.high[made.times_s < 0.9]).max() == 0.0
