"""PANNs Cnn14: fourteen layers on a log-mel spectrogram that the network computes itself.

Source: Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern recognition", 2020; key
format of `Cnn14_mAP=0.431.pth`, which holds the Fourier and mel filters among its weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from extractors.mel import hann, slaney_mel_matrix

RATE_HZ = 32_000
_FFT, _HOP, _BANDS = 1024, 320, 64
_LOW_HZ, _HIGH_HZ = 50.0, 14_000.0
_SMALLEST_POWER = 1e-10
_CHANNELS = (64, 128, 256, 512, 1024, 2048)
_CLASSES = 527


class _Filter(nn.Module):
    """Fixed filters under the key `weight`: a buffer, so that seeded random weights keep their values."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.float32)))


class _Fourier(nn.Module):
    """Real and imaginary part of a windowed Fourier transform, as two (513, 1, 1024) convolutions."""

    def __init__(self) -> None:
        super().__init__()
        # The product is reduced modulo the length first: cos of a large angle loses digits.
        turns = np.outer(np.arange(_FFT // 2 + 1), np.arange(_FFT)) % _FFT / _FFT
        self.conv_real = _Filter((np.cos(2 * np.pi * turns) * hann(_FFT))[:, None])
        self.conv_imag = _Filter((-np.sin(2 * np.pi * turns) * hann(_FFT))[:, None])


class _Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stft = _Fourier()


class _LogMel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        matrix = slaney_mel_matrix(RATE_HZ, _FFT, _BANDS, _LOW_HZ, _HIGH_HZ)
        self.register_buffer("melW", torch.from_numpy(matrix))


class _Block(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU, then an average pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, maps: torch.Tensor, pool: int) -> torch.Tensor:
        maps = F.relu(self.bn1(self.conv1(maps)))
        maps = F.relu(self.bn2(self.conv2(maps)))
        return F.avg_pool2d(maps, pool)


class Cnn14Network(nn.Module):
    """Waveform to the 2048 units before the AudioSet classes.

    `fc_audioset` is not used for the feature; it is kept so that the published file loads strictly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram_extractor = _Spectrogram()
        self.logmel_extractor = _LogMel()
        self.bn0 = nn.BatchNorm2d(_BANDS)
        for number, (inputs, outputs) in enumerate(zip((1, *_CHANNELS[:-1]), _CHANNELS, strict=True), start=1):
            self.add_module(f"conv_block{number}", _Block(inputs, outputs))
        self.fc1 = nn.Linear(_CHANNELS[-1], _CHANNELS[-1])
        self.fc_audioset = nn.Linear(_CHANNELS[-1], _CLASSES)

    def log_mel(self, waves: torch.Tensor) -> torch.Tensor:
        """(B, N) float32 at 32 kHz -> (B, 1, N // 320 + 1, 64) decibels; each row is reflected at its own ends."""
        fourier = self.spectrogram_extractor.stft
        padded = F.pad(waves[:, None], (_FFT // 2, _FFT // 2), mode="reflect")
        real = F.conv1d(padded, fourier.conv_real.weight, stride=_HOP)
        imaginary = F.conv1d(padded, fourier.conv_imag.weight, stride=_HOP)
        power = (real.square() + imaginary.square()).transpose(1, 2)
        mel = power @ self.logmel_extractor.melW
        return 10.0 * torch.log10(mel.clamp(min=_SMALLEST_POWER))[:, None]

    def embed(self, log_mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, 64) decibels -> (B, 2048) after the ReLU of `fc1`."""
        maps = self.bn0(log_mel.transpose(1, 3)).transpose(1, 3)
        for number in range(1, 7):
            maps = self.get_submodule(f"conv_block{number}")(maps, 2 if number < 6 else 1)
        units = maps.mean(dim=3)
        return F.relu(self.fc1(units.amax(dim=2) + units.mean(dim=2)))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """(B, N) float32 at 32 kHz -> (B, 2048)."""
        with torch.autocast(waves.device.type, enabled=False):  # half precision cannot hold 1e-10
            log_mel = self.log_mel(waves.float())
        return self.embed(log_mel)
