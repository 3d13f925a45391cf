"""ESResNeXt-FBSP: a trainable time-frequency transform in front of a ResNeXt-50 with attention gates.

The trunk is torchvision's ResNeXt-50 32x4d with the same key names; the transform and the gates are written here.

Source: Guzhov et al., "ESResNe(X)t-fbsp: learning robust time-frequency transformation of audio", IJCNN 2021, and
"AudioCLIP", ICASSP 2022; key format of AndreyGuzhov/AudioCLIP@45327aa (`audio.*`).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

FFT = 2048
WINDOW = 1654
HOP = 561
_BINS = FFT // 2 + 1
_BANDS = 3
_EPSILON = 1e-8
_POWER_FLOOR = 1e-18
_LOW, _HIGH = -32_768.0, 32_767.0

# Gate n looks at what enters stage n: channels in, channels out, kernel.  The fifth stands around the final pooling.
_GATES = (
    (64, 256, (3, 1)),
    (256, 512, (1, 5)),
    (512, 1024, (3, 1)),
    (1024, 2048, (1, 5)),
    (2048, 2048, (3, 5)),
)


def frame(samples: torch.Tensor) -> torch.Tensor:
    """(B, L) -> (B, F, 1654), F = 1 + ceil((L - 1654) / 561); missing samples are zeros, half of them in front."""
    length = samples.shape[-1]
    count = 1 + max(0, math.ceil((length - WINDOW) / HOP))
    missing = (count - 1) * HOP + WINDOW - length
    return nn.functional.pad(samples, (missing // 2, missing - missing // 2)).unfold(-1, WINDOW, HOP)


class FrequencyBSpline(nn.Module):
    """1025 complex B-spline wavelets of frequency `fc`, bandwidth `fb` and order `m`, trained with the network.

    With m = 0, fb = 1, fc = 0, 1, ... it is a discrete Fourier transform.  The three vectors are buffers: a seeded
    random network keeps them there, because a random bandwidth may be negative and then has no square root.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(_BINS))
        self.register_buffer("fb", torch.ones(_BINS))
        self.register_buffer("fc", torch.arange(_BINS, dtype=torch.float32))

    def filters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Real and imaginary part, each (1025, 2048)."""
        time = torch.linspace(-1.0, 1.0, FFT, dtype=self.fc.dtype, device=self.fc.device) * math.pi + _EPSILON
        order, bandwidth, frequency = self.m[:, None], self.fb[:, None], self.fc[:, None]
        argument = bandwidth * time / (order + _EPSILON)
        sinc = torch.where(argument == 0, torch.ones_like(argument), torch.sin(argument) / argument)
        # A real base to a real power: where the base is negative, the result turns by pi times the power.
        magnitude = (sinc**2) ** (0.5 * order)
        turn = order * math.pi * (sinc < 0)
        envelope_real, envelope_imaginary = magnitude * torch.cos(turn), magnitude * torch.sin(turn)
        cosine, sine = torch.cos(frequency * time), -torch.sin(frequency * time)
        # In the published order of operations: decibels of nearly empty bins enlarge a difference in the last bit.
        scale = bandwidth.sqrt()
        return (
            scale * (envelope_real * cosine - envelope_imaginary * sine) / FFT**0.5,
            scale * (envelope_real * sine + envelope_imaginary * cosine) / FFT**0.5,
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, F, 2048) -> (B, 1025, F) power."""
        real, imaginary = self.filters()
        power = nn.functional.linear(frames, real) ** 2 + nn.functional.linear(frames, imaginary) ** 2
        return power.transpose(-1, -2)


class Gate(nn.Module):
    """Multiplicative attention: depthwise and pointwise convolution of a max-pooled map, between 0 and 1."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(inputs, inputs, kernel, padding=padding, groups=inputs)
        self.conv_point = nn.Conv2d(inputs, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        pooled = nn.functional.adaptive_max_pool2d(maps, size)
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))


class ESResNeXt(ResNet):
    """Samples in the range of 16-bit integers to 1024 numbers."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes=1024, groups=32, width_per_group=4)
        self.fbsp = FrequencyBSpline()
        for number, gate in enumerate(_GATES, start=1):
            self.add_module(f"att{number}", Gate(*gate))
        self.register_buffer("window", _blackman_harris(WINDOW))

    def spectrogram(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, L) float32 samples in [-32768, 32767] -> (B, 3, 341, F) decibels: three bands as three channels."""
        samples = (samples - _LOW) * 2.0 / (_HIGH - _LOW) - 1.0
        frames = frame(samples) * self.window
        missing = FFT - WINDOW
        power = self.fbsp(nn.functional.pad(frames, (missing // 2, missing - missing // 2)))
        power = power[:, : _BINS // _BANDS * _BANDS].unflatten(1, (_BANDS, -1))
        return 10.0 * torch.log10(torch.where(power > 0.0, power, torch.full_like(power, _POWER_FLOOR)))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, L) float32 samples in [-32768, 32767] -> (B, 1024), not normalised."""
        # Decibels of a half-precision spectrum would be mostly rounding.
        with torch.autocast(samples.device.type, enabled=False):
            maps = self.spectrogram(samples.float())
        maps = self.maxpool(self.relu(self.bn1(self.conv1(maps))))
        for number in (1, 2, 3, 4):
            after = getattr(self, f"layer{number}")(maps)
            maps = after * getattr(self, f"att{number}")(maps, after.shape[-2:])
        pooled = self.avgpool(maps)
        return self.fc((pooled * self.att5(maps, pooled.shape[-2:])).flatten(1))


def _blackman_harris(samples: int) -> torch.Tensor:
    """(samples,) float32 periodic four-term Blackman-Harris window."""
    phase = torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return sum(weight * torch.cos(order * phase) for order, weight in enumerate(terms)).float()
