"""A clip's sound as something to look at: an envelope and a log spectrogram on a short time axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE_HZ = 16000
COLUMNS = 300
BANDS = 48
_WINDOW = 512
_LOW_HZ, _HIGH_HZ = 80.0, 7600.0  # the resampler fades out just below 8 kHz
_FLOOR_DB = -80.0


@dataclass(frozen=True)
class Sound:
    """What is drawn of a waveform.

    Args:
        times_s: (n,) seconds, the middle of each column of the envelope.
        low, high: (n,) extremes of the samples of a column, in [-1, 1].
        level_db: (BANDS, m) decibels below the loudest cell, -80 .. 0, low frequencies first.
        centres_hz: (BANDS,) logarithmically spaced centres of the bands.
        end_s: end of the sound, seconds.
    """

    times_s: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level_db: np.ndarray
    centres_hz: np.ndarray
    end_s: float


def sound(wave: np.ndarray, rate_hz: int = RATE_HZ, columns: int = COLUMNS) -> Sound:
    """Envelope and spectrogram of a mono waveform.

    Args:
        wave: (N,) float32 in [-1, 1], N > 0.
    Raises:
        ValueError: the wave is empty.
    """
    wave = np.nan_to_num(np.asarray(wave, dtype=np.float32).ravel())
    if wave.size == 0:
        raise ValueError("no samples to draw")
    end_s = wave.size / rate_hz
    edges = np.unique(np.linspace(0, wave.size, min(columns, wave.size) + 1).astype(np.int64))
    low, high = np.minimum.reduceat(wave, edges[:-1]), np.maximum.reduceat(wave, edges[:-1])
    times_s = (edges[:-1] + edges[1:]) / 2 / rate_hz
    centres_hz = np.geomspace(_LOW_HZ, min(_HIGH_HZ, rate_hz / 2), BANDS)
    return Sound(times_s, low, high, _levels(wave, rate_hz, centres_hz, columns), centres_hz, end_s)


def _levels(wave: np.ndarray, rate_hz: int, centres_hz: np.ndarray, columns: int) -> np.ndarray:
    """(BANDS, m) decibels: power of Hann windows, two or more per column, read at the centres of the bands."""
    count = min(columns, max(wave.size // (_WINDOW // 2), 1))
    padded = np.pad(wave, (_WINDOW // 2, _WINDOW // 2))
    middles = (np.arange(count * 2) + 0.5) / (count * 2) * wave.size
    windows = padded[middles.astype(np.int64)[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.square(np.abs(np.fft.rfft(windows, axis=1)))
    power = power.reshape(count, 2, -1).mean(axis=1)
    bins = centres_hz / (rate_hz / _WINDOW)
    below = np.clip(np.floor(bins).astype(np.int64), 0, power.shape[1] - 2)
    share = bins - below
    bands = power[:, below] * (1 - share) + power[:, below + 1] * share
    loudest = float(bands.max())
    if loudest <= 0:
        return np.full((len(centres_hz), count), _FLOOR_DB)
    return np.maximum(10 * np.log10(np.maximum(bands.T / loudest, 1e-12)), _FLOOR_DB)
