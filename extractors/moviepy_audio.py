"""The samples that moviepy 1.0 writes when it is asked for 16 kHz, as the LLP authors' script asks.

`VideoFileClip(path).audio.write_audiofile(wav, fps=16000)` has no resampling filter.  The reader has ffmpeg decode to
44.1 kHz stereo; the writer then picks the nearest of those samples for each output sample, so everything above 8 kHz
folds down.  On top of that, each time the reader moves its buffer it keeps one sample too many, so the sound falls
behind by one sample about every 2.3 s, and it loses its place where the decoded audio ends before the stated duration.
All of this is in the published features: against a filtered resampler, log-mel differs by 0.1 to 0.2 on average.

Source: behaviour of moviepy 1.0.3, established by running it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

READER_RATE_HZ = 44_100
_BUFFER = 200_000
_CHUNK = 2_000
_CLIP = 0.99
_FULL_SCALE = 32_768.0


@dataclass
class _Buffer:
    """What the reader holds: where it believes its buffer starts, and where the samples in it really start."""

    believed_start: int
    start: int
    samples: int
    read_to: int


def _move(buffer: _Buffer, centre: int, size: int, available: int) -> None:
    """Centre the buffer anew, keeping the part of it that overlaps and one sample more."""
    believed_start = max(0, centre - size // 2)
    believed_end = buffer.believed_start + size
    buffer.believed_start = believed_start
    if believed_start < believed_end < believed_start + size:
        kept = believed_end - believed_start + 1
        held = min(kept, buffer.samples)
        fresh = max(min(size - kept, available - buffer.read_to), 0)
        buffer.start += buffer.samples - held
        buffer.samples = held + fresh
        buffer.read_to += fresh
    else:
        buffer.start = believed_start
        buffer.samples = max(min(size, available - believed_start), 0)
        buffer.read_to = buffer.start + buffer.samples


def sample_map(duration_s: float, available: int, rate_hz: int = 16_000) -> np.ndarray:
    """Which decoded sample becomes each written one.

    Args:
        duration_s: of the container; ffmpeg's log, where moviepy reads it, gives hundredths of a second.
        available: decoded samples at 44.1 kHz.
        rate_hz: of the written file.
    Returns:
        (N,) int64 into the decoded samples.
    """
    duration_s = round(duration_s, 2)
    total = int(rate_hz * duration_s)
    size = min(int(READER_RATE_HZ * duration_s) + 1, _BUFFER)
    if total == 0 or available == 0:
        return np.zeros(0, dtype=np.int64)
    bounds = np.linspace(0, total, total // _CHUNK + 2, endpoint=True, dtype=int)
    buffer = _Buffer(0, 0, min(size, available), min(size, available))
    chosen = []
    for first, last in itertools.pairwise(bounds):
        wanted = np.rint(READER_RATE_HZ * ((1.0 / rate_hz) * np.arange(first, last))).astype(np.int64)
        for edge in (wanted[:1], wanted[-1:]):
            if edge.size and not 0 <= edge[0] - buffer.believed_start < buffer.samples:
                _move(buffer, int(edge[0]), size, available)
                break
        places = wanted - buffer.believed_start
        if buffer.samples < size // 2:
            places -= size // 2 - buffer.samples + 1
        places = np.minimum(places, buffer.samples - 1)
        places = np.where(places < 0, np.maximum(places + buffer.samples, 0), places)
        chosen.append(buffer.start + places)
    return np.concatenate(chosen)


def stereo(samples: np.ndarray) -> np.ndarray:
    """(C, N) -> (2, N) as ffmpeg's `-ac 2` does: mono drops by 3 dB, 5.1 is mixed down without its bass channel."""
    if len(samples) == 2:
        return samples
    half = np.float32(0.5) ** np.float32(0.5)  # in float32, as ffmpeg: a last bit decides a rounding
    if len(samples) == 1:
        return np.repeat(samples * half, 2, axis=0)
    if len(samples) == 6:
        left, right, centre, _, back_left, back_right = samples
        pair = np.stack([left + half * (centre + back_left), right + half * (centre + back_right)])
        return pair / (1 + 2 * half)
    return np.repeat(samples.mean(axis=0, keepdims=True), 2, axis=0)


def written(samples: np.ndarray, duration_s: float, rate_hz: int = 16_000) -> np.ndarray:
    """What the wav file holds.

    Args:
        samples: (C, N) float32 at 44.1 kHz.
        duration_s: of the clip.
        rate_hz: of the wav file.
    Returns:
        (2, M) float64, multiples of 2^-15 within +-0.99.
    """
    pair = stereo(samples.astype(np.float32)).astype(np.float64)
    pair = np.clip(np.rint(pair * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1) / _FULL_SCALE
    picked = pair[:, sample_map(duration_s, pair.shape[1], rate_hz)]
    return np.trunc(np.clip(picked, -_CLIP, _CLIP) * _FULL_SCALE) / _FULL_SCALE
