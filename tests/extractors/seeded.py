"""State dicts and sounds made from seeds by numpy alone, the same in a reference's environment and in ours."""

from __future__ import annotations

import hashlib

import numpy as np


def tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float32 values for a parameter of this published name: norms, biases and statistics are never trivial."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    noise = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(shape, dtype=np.float32)
    if name.endswith("bn0.running_mean"):  # over decibels
        return -20.0 + 5.0 * noise
    if name.endswith("bn0.running_var"):
        return 100.0 * (1.0 + 0.2 * np.abs(noise))
    if name.endswith("running_mean"):
        return 0.1 * noise
    if name.endswith("running_var"):
        return 1.0 + 0.2 * np.abs(noise)
    if name.endswith("fbsp.m"):  # order, bandwidth and frequency of the wavelets, around a Fourier transform
        return 0.3 * np.abs(noise)
    if name.endswith("fbsp.fb"):
        return 1.0 + 0.1 * noise
    if name.endswith("fbsp.fc"):
        return np.arange(len(noise), dtype=np.float32) + 0.1 * noise
    if "logit_scale" in name:
        return 2.5 + 0.1 * noise
    if len(shape) >= 2:
        return noise * np.float32(np.prod(shape[1:]) ** -0.5)
    if name.endswith("weight"):
        return 1.0 + 0.1 * noise
    return 0.1 * noise


def sound(samples: int, rate_hz: int, seed: int) -> np.ndarray:
    """(samples,) float32 in [-1, 1]: three gliding tones under noise whose loudness follows a slow pattern."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(samples) / rate_hz
    tones = sum(
        np.sin(2 * np.pi * (start * time_s + 0.5 * slope * time_s**2))
        for start, slope in zip((200.0, 900.0, 4000.0), generator.uniform(-40, 80, 3), strict=True)
    )
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 0.37 * time_s + generator.uniform(0, 6))
    noise = generator.standard_normal(samples)
    return (0.12 * tones + 0.15 * loudness * noise).clip(-1, 1).astype(np.float32)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: smooth colour gradients under noise, so that resampling kernels differ."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = np.sin(generator.uniform(2, 20, 3) * rows + generator.uniform(2, 20, 3) * columns)
    return (127 + 80 * waves + generator.uniform(-40, 40, (height, width, 3))).clip(0, 255).astype(np.uint8)
