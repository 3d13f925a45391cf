"""VGGish's log-mel against its formula, written here a second time sample by sample, and against libraries."""

import librosa
import numpy as np
import pytest
import torch
import torchaudio

from extractors.mel import (
    VGGISH_SAMPLES,
    hann,
    slaney_mel_matrix,
    vggish_log_mel,
    vggish_log_mel_tensor,
    vggish_mel_matrix,
)


def reference_mel_matrix() -> np.ndarray:
    """The table of the AudioSet release, one triangle and one bin at a time, from exact mel arithmetic."""

    def mel(hz):
        return 1127.0 * np.log(1.0 + hz / 700.0)

    step = (mel(7500.0) - mel(125.0)) / 65
    matrix = np.zeros((257, 64))
    for band in range(64):
        low = mel(125.0) + band * step
        for k in range(1, 257):
            m = mel(k * 16_000 / 512)
            if low < m < low + step:
                matrix[k, band] = (m - low) / step
            elif low + step <= m < low + 2 * step:
                matrix[k, band] = (low + 2 * step - m) / step
    return matrix


def reference_log_mel(wave: np.ndarray, matrix: np.ndarray, fft_offset: int = 0) -> np.ndarray:
    """(96, 64): a direct Fourier sum of 512 points over 400 windowed samples that start at `fft_offset`."""
    n = np.arange(400)
    window = 0.5 * (1 - np.cos(2 * np.pi * n / 400))
    fourier = np.exp(-2j * np.pi * np.outer(n + fft_offset, np.arange(257)) / 512)
    rows = []
    for frame in range(96):
        spectrum = (wave[frame * 160 : frame * 160 + 400] * window) @ fourier
        rows.append(np.log(np.abs(spectrum) @ matrix + 0.01))
    return np.stack(rows)


def noise(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(VGGISH_SAMPLES) / 16_000
    return 0.3 * np.sin(2 * np.pi * (200 + 3000 * time_s) * time_s) + 0.05 * rng.standard_normal(VGGISH_SAMPLES)


def test_96_frames_reach_over_15600_samples():
    assert VGGISH_SAMPLES == 15_600


def test_mel_matrix_is_the_published_one():
    np.testing.assert_allclose(vggish_mel_matrix(), reference_mel_matrix(), atol=1e-9)
    assert not vggish_mel_matrix()[0].any()


def test_log_mel_equals_the_formula():
    wave = noise()
    found = vggish_log_mel(wave[None])
    assert found.shape == (1, 96, 64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], reference_log_mel(wave, reference_mel_matrix()), atol=1e-6)


def test_log_mel_of_a_tensor_is_the_same():
    waves = np.stack([noise(seed) for seed in range(70)])
    found = vggish_log_mel_tensor(torch.from_numpy(waves))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, vggish_log_mel(waves), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="15600"):
        vggish_log_mel_tensor(torch.zeros(1, 16_000))


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
def test_library_mel_banks_are_not_it(mel_scale):
    """Negative control: triangles linear in Hz (librosa, torchaudio) and Slaney's scale both show."""
    bank = librosa.filters.mel(
        sr=16_000, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=mel_scale == "htk", norm=None, dtype=np.float64
    ).T
    wave = noise()
    error = np.abs(vggish_log_mel(wave[None])[0] - reference_log_mel(wave, bank)).max()
    assert error > 2e-3


def test_torchaudio_spectrogram_is_not_it():
    """Negative control: a window centred in the FFT starts 56 samples late and has one frame fewer."""
    transform = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, win_length=400, hop_length=160, f_min=125, f_max=7500, n_mels=64, power=1, center=False
    )
    wave = noise()
    theirs = np.log(transform(torch.from_numpy(wave).float()).numpy().T + 0.01)
    assert len(theirs) == 95
    assert np.abs(vggish_log_mel(wave[None])[0, :95] - theirs).max() > 0.1


def test_symmetric_window_is_not_it():
    wave = noise()
    assert np.abs(hann(400) - np.hanning(400)).max() > 1e-3
    np.testing.assert_allclose(hann(400), np.hanning(401)[:-1], atol=1e-12)
    assert np.isfinite(vggish_log_mel(wave[None])).all()


def test_silence_is_the_logarithm_of_the_offset():
    np.testing.assert_allclose(vggish_log_mel(np.zeros((2, VGGISH_SAMPLES))), np.log(0.01), rtol=1e-6)


def test_a_row_has_the_same_bits_alone_and_among_many():
    waves = np.stack([noise(seed) for seed in range(70)])
    together = vggish_log_mel(waves)
    for row in (0, 63, 64, 69):
        np.testing.assert_array_equal(together[row], vggish_log_mel(waves[row : row + 1])[0])


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="15600"):
        vggish_log_mel(np.zeros((1, 16_000)))


def test_slaney_bank_equals_torchaudio():
    theirs = torchaudio.functional.melscale_fbanks(513, 50.0, 14_000.0, 64, 32_000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(slaney_mel_matrix(32_000, 1024, 64, 50.0, 14_000.0), theirs.numpy(), atol=1e-6)
