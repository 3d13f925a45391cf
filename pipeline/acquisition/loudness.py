"""How loud a clip is: integrated loudness after ITU-R BS.1770-4, fed block by block."""

from __future__ import annotations

import numpy as np

_RESPONSE_S = 0.2  # both filters have died away by e-40 after it, so a convolution replaces the recursion
_BLOCK_S = 0.1  # gating blocks of 0.4 s advance by this step
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
SILENT_DB = -120.0


class LoudnessMeter:
    """Integrated loudness and peak of a stream.

    Args:
        rate_hz: sample rate.
        channels: 6 is taken as 5.1 in the usual order (L R C LFE Ls Rs); any other count is weighted evenly.
    Source: ITU-R BS.1770-4, annex 1; filters recomputed for any sample rate from their analogue prototypes.
    """

    def __init__(self, rate_hz: int, channels: int) -> None:
        self.rate_hz, self.channels = rate_hz, channels
        self.peak = 0.0
        self._response = _impulse_response(rate_hz)
        self._history = np.zeros((channels, len(self._response) - 1))
        self._step = max(round(_BLOCK_S * rate_hz), 1)
        self._rest = np.zeros((channels, 0))
        self._powers: list[np.ndarray] = []
        self._weights = np.array([1, 1, 1, 0, 1.41, 1.41]) if channels == 6 else np.ones(channels)

    def add(self, samples: np.ndarray) -> None:
        """Account for samples (channels, n) float in [-1, 1]."""
        if samples.shape[1] == 0:
            return
        self.peak = max(self.peak, float(np.abs(samples).max()))
        known = np.concatenate([self._history, samples.astype(np.float64)], axis=1)
        self._history = known[:, -self._history.shape[1] :]
        length = 1 << (known.shape[1] + len(self._response)).bit_length()
        spectrum = np.fft.rfft(known, length) * np.fft.rfft(self._response, length)
        filtered = np.fft.irfft(spectrum, length)[:, len(self._response) - 1 : known.shape[1]]
        filtered = np.concatenate([self._rest, filtered], axis=1)
        blocks = filtered.shape[1] // self._step
        whole = filtered[:, : blocks * self._step].reshape(self.channels, blocks, self._step)
        self._powers.append(np.einsum("cbs,cbs,c->b", whole, whole, self._weights) / self._step)
        self._rest = filtered[:, blocks * self._step :]

    @property
    def peak_db(self) -> float:
        """Sample peak, dB below full scale; -120 for digital silence."""
        return max(20 * float(np.log10(self.peak)), SILENT_DB) if self.peak > 0 else SILENT_DB

    @property
    def loudness_lufs(self) -> float:
        """Integrated loudness; -120 where nothing passes the gate at -70 LUFS."""
        powers = np.concatenate(self._powers) if self._powers else np.zeros(0)
        if len(powers) < 4:
            blocks = powers.mean(keepdims=True) if len(powers) else powers
        else:
            blocks = np.convolve(powers, np.full(4, 0.25), mode="valid")
        loud = blocks[blocks > _power(_ABSOLUTE_GATE)]
        if not len(loud):
            return SILENT_DB
        gate = max(_level(loud.mean()) + _RELATIVE_GATE, _ABSOLUTE_GATE)
        return float(_level(blocks[blocks > _power(gate)].mean()))


def _level(power: float) -> float:
    return -0.691 + 10 * np.log10(power)


def _power(level: float) -> float:
    return 10 ** ((level + 0.691) / 10)


def _impulse_response(rate_hz: int) -> np.ndarray:
    """(n,) float64: what the two filters in a row make of a single one."""
    signal = np.zeros(round(_RESPONSE_S * rate_hz))
    signal[0] = 1.0
    for (b0, b1, b2), (_, a1, a2) in (_shelf(rate_hz), _high_pass(rate_hz)):
        x1 = x2 = y1 = y2 = 0.0
        for index, x0 in enumerate(signal.tolist()):
            y0 = b0 * x0 + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
            signal[index], x2, x1, y2, y1 = y0, x1, x0, y1, y0
    return signal


def _shelf(rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """The head's effect: +4 dB above about 2 kHz."""
    warped = np.tan(np.pi * 1681.974450955533 / rate_hz)
    quality, gain = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    scale = 1 + warped / quality + warped**2
    numerator = np.array(
        [
            gain + middle * warped / quality + warped**2,
            2 * (warped**2 - gain),
            gain - middle * warped / quality + warped**2,
        ]
    )
    return numerator / scale, np.array([scale, 2 * (warped**2 - 1), 1 - warped / quality + warped**2]) / scale


def _high_pass(rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """The revised low-frequency B curve."""
    warped = np.tan(np.pi * 38.13547087602444 / rate_hz)
    quality = 0.5003270373238773
    scale = 1 + warped / quality + warped**2
    return np.array([1.0, -2.0, 1.0]), np.array([scale, 2 * (warped**2 - 1), 1 - warped / quality + warped**2]) / scale
