"""Log-mel front ends, written out where no library computes the published one.

VGGish differs from every library's default in five ways at once: the window sits at the start of the FFT, the
spectrum is a magnitude, the triangles are linear in mel, the log is natural and has an offset, and nothing is
padded or centred.  Each of these alone changes the feature visibly.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from extractors.constants import kept

VGGISH_RATE_HZ = 16_000
VGGISH_FRAMES = 96
VGGISH_BANDS = 64
_WINDOW, _HOP, _FFT = 400, 160, 512
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01
#: Samples that 96 frames reach over: 95 hops and one whole window, 0.975 s.
VGGISH_SAMPLES = _WINDOW + (VGGISH_FRAMES - 1) * _HOP
# Rows transformed at once; a row's spectra take about 1 MB.
_ROWS = 64


def hann(samples: int) -> np.ndarray:
    """(samples,) float64 periodic Hann window: the first `samples` points of a symmetric one that is 1 longer."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """HTK's scale, 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(np.asarray(hz, dtype=np.float64) / 700.0)


@functools.cache
def vggish_mel_matrix() -> np.ndarray:
    """(257, 64) float64: triangles that rise and fall linearly *in mel*, peak 1, without area norm; no DC.

    Source: Hershey et al. 2017 and the AudioSet release.  HTK banks of librosa and torchaudio are linear in Hz.
    """
    bins = hz_to_mel(np.linspace(0.0, VGGISH_RATE_HZ / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(hz_to_mel(_LOW_HZ), hz_to_mel(_HIGH_HZ), VGGISH_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    matrix = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    matrix[0] = 0.0
    matrix.setflags(write=False)
    return matrix


def vggish_log_mel(pieces: np.ndarray) -> np.ndarray:
    """Log-mel patches of VGGish.

    Args:
        pieces: (T, 15600) mono at 16 kHz in [-1, 1].
    Returns:
        (T, 96, 64) float32, computed in float64: ln(mel of the magnitude spectrum + 0.01).
    Raises:
        ValueError: pieces of another length.
    """
    _check_vggish(pieces.shape)
    window, matrix = hann(_WINDOW), vggish_mel_matrix()
    patches = np.empty((len(pieces), VGGISH_FRAMES, VGGISH_BANDS), dtype=np.float32)
    for first in range(0, len(pieces), _ROWS):
        block = np.asarray(pieces[first : first + _ROWS], dtype=np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(block, _WINDOW, axis=1)[:, ::_HOP]
        magnitude = np.abs(np.fft.rfft(frames * window, n=_FFT, axis=2))
        # One product per row, always (96, 257) by (257, 64): a row's bits do not depend on how many rows there are.
        patches[first : first + _ROWS] = np.log(np.matmul(magnitude, matrix) + _LOG_OFFSET)
    return patches


@kept
def _vggish_constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(values, device=device) for values in (hann(_WINDOW), vggish_mel_matrix()))


def vggish_log_mel_tensor(pieces: torch.Tensor) -> torch.Tensor:
    """`vggish_log_mel` of a tensor, on its device; equal within the rounding of float32.

    The bits of a row may depend on how many rows there are: give always as many.  On a CPU numpy takes half the time.
    """
    _check_vggish(pieces.shape)
    window, matrix = _vggish_constants(pieces.device)
    patches = []
    for block in pieces.split(_ROWS):
        frames = block.double().unfold(1, _WINDOW, _HOP)
        magnitude = torch.fft.rfft(frames * window, n=_FFT).abs()
        patches.append(torch.log(magnitude @ matrix + _LOG_OFFSET).float())
    return torch.cat(patches)


def _check_vggish(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] != VGGISH_SAMPLES:
        raise ValueError(f"VGGish patches are made of (T, {VGGISH_SAMPLES}) samples, found {tuple(shape)}")


def slaney_mel_matrix(rate_hz: int, fft: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """(fft // 2 + 1, bands) float32: Slaney's scale and area norm, librosa's default bank."""
    import librosa

    return librosa.filters.mel(
        sr=rate_hz, n_fft=fft, n_mels=bands, fmin=low_hz, fmax=high_hz, htk=False, norm="slaney"
    ).T.astype(np.float32)
