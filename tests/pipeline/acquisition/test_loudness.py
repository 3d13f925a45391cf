"""Loudness against ffmpeg's own meter and the reference tone of the recommendation."""

import re
import subprocess
import wave

import numpy as np
import pytest

from pipeline.acquisition.cut import ffmpeg_program
from pipeline.acquisition.loudness import SILENT_DB, LoudnessMeter


def _measure(samples, rate_hz, block=4096):
    meter = LoudnessMeter(rate_hz, len(samples))
    for start in range(0, samples.shape[1], block):
        meter.add(samples[:, start : start + block])
    return meter


def test_the_reference_tone():
    times = np.arange(5 * 48_000) / 48_000
    meter = _measure(np.sin(2 * np.pi * 997 * times)[None], 48_000)
    assert meter.loudness_lufs == pytest.approx(-3.01, abs=0.02)  # BS.1770-4, annex 1: 0 dBFS, 997 Hz, one channel
    assert meter.peak_db == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (16_000, 1)])
def test_agrees_with_ffmpeg(tmp_path, rate_hz, channels):
    rng = np.random.default_rng(0)
    envelope = np.repeat([0.5, 0.001, 0.05, 0.3, 0.0], 2 * rate_hz)  # loud, gated, quiet, medium, silent
    samples = rng.normal(0, 0.3, (channels, len(envelope))).clip(-1, 1) * envelope
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes((samples.T * 32767).round().astype("<i2").tobytes())
    command = [ffmpeg_program(), "-nostdin", "-i", str(tmp_path / "x.wav"), "-af", "ebur128", "-f", "null", "-"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    expected = float(re.findall(r"I:\s+(-?[\d.]+) LUFS", words)[-1])
    assert _measure(samples, rate_hz).loudness_lufs == pytest.approx(expected, abs=0.15)


def test_blocks_do_not_matter():
    samples = np.random.default_rng(1).normal(0, 0.1, (2, 30_000))
    one, many = _measure(samples, 22_050, 30_000), _measure(samples, 22_050, 777)
    assert one.loudness_lufs == pytest.approx(many.loudness_lufs, abs=1e-9)


def test_silence_and_nothing():
    assert _measure(np.zeros((1, 16_000)), 16_000).loudness_lufs == SILENT_DB
    assert LoudnessMeter(16_000, 1).peak_db == SILENT_DB
