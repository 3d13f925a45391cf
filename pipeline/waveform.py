"""Samples of a decoded audio stream: to float, and to another rate by a named resampler."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator

import av
import numpy as np

# Samples per channel that are worked on at once where a wave does not fit into memory.
_STREAMED = 1 << 20


def resample(wave: np.ndarray, from_hz: int, to_hz: int, method: str) -> np.ndarray:
    """(..., N) float32 at another rate; N becomes ceil(N * to / from), as librosa does.

    Args:
        method: `soxr_hq` (equal to `librosa.resample`), or `kaiser_best` (resampy, the 2018-2021 features).
    Raises:
        ValueError: unknown method.
    """
    if method == "soxr_hq":
        import soxr

        made = soxr.resample(wave.T, from_hz, to_hz, quality="HQ").T
    elif method == "kaiser_best":
        import resampy

        made = resampy.resample(wave, from_hz, to_hz, axis=-1, filter="kaiser_best")
    else:
        raise ValueError(f"resampler {method!r} is none of soxr_hq, kaiser_best, swr")
    # librosa multiplies by the rounded ratio, and 443,205 samples at 44.1 kHz become 482,401 at 48 kHz, not 482,400.
    length = int(np.ceil(wave.shape[-1] * (float(to_hz) / from_hz)))
    made = made[..., :length]
    return np.pad(made, [(0, 0)] * (made.ndim - 1) + [(0, length - made.shape[-1])])


def joined(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """(C, N) float32 of (C, n) pieces; (1, 0) of none."""
    parts = list(pieces)
    return np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), dtype=np.float32)


def spooled(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The same in a file that has no name and vanishes with the array, so that it does not count as memory."""
    channels = 1
    with tempfile.TemporaryFile(prefix="clave-audio-") as file:
        for piece in pieces:
            channels = len(piece)
            file.write(np.ascontiguousarray(piece.T, dtype=np.float32))
        file.flush()
        if file.tell() == 0:
            return np.zeros((1, 0), dtype=np.float32)
        return np.memmap(file, np.float32, mode="r").reshape(-1, channels).T


def _forget(wave: np.ndarray) -> None:
    """Pages of a file that were read count as the process's memory until they are given back."""
    file = getattr(wave, "_mmap", None)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def streamed(wave: np.ndarray, from_hz: int, to_hz: int, mono: bool) -> Iterator[np.ndarray]:
    """(C, n) or (1, n) float32 pieces of what `resample` with soxr_hq gives, in memory that does not follow N."""
    import soxr

    channels = 1 if mono else len(wave)
    stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, channels, np.float32, quality="HQ")
    left = int(np.ceil(wave.shape[1] * (float(to_hz) / from_hz)))
    for start in range(0, wave.shape[1], _STREAMED):
        piece = np.array(wave[:, start : start + _STREAMED])
        _forget(wave)
        piece = piece.mean(axis=0, keepdims=True) if mono else piece
        if stream is not None:
            last = start + _STREAMED >= wave.shape[1]
            piece = stream.resample_chunk(np.ascontiguousarray(piece.T), last=last).reshape(-1, channels).T
        piece = piece[:, :left]
        left -= piece.shape[1]
        yield piece
    if left:
        yield np.zeros((channels, left), dtype=np.float32)


def swresample(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(C, N) float32 resampled by ffmpeg's swresample, through 16-bit PCM as the LLP authors' wav files were."""
    channels = wave.shape[0]
    layout = {1: "mono", 2: "stereo", 6: "5.1"}.get(channels, f"{channels}c")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave, dtype=np.float32), format="fltp", layout=layout)
    frame.rate = from_hz
    resampler = av.AudioResampler(format="s16p", layout=layout, rate=to_hz)
    parts = [part.to_ndarray() for part in [*resampler.resample(frame), *resampler.resample(None)]]
    return np.concatenate(parts, axis=1).astype(np.float32) / 32768.0


def to_float(frame: av.AudioFrame) -> np.ndarray:
    """(C, n) float32 in [-1, 1] of any sample format."""
    if frame.format.name == "fltp":  # what most decoders give; 0.6 of the time of `to_ndarray`
        planes = frame.planes
        made = np.empty((len(planes), frame.samples), dtype=np.float32)
        for channel, plane in zip(made, planes, strict=True):
            channel[:] = np.frombuffer(plane, np.float32, frame.samples)
        return made
    data = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        data = data.reshape(-1, channels).T
    if data.dtype.kind == "f":
        return data.astype(np.float32)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128.0) / 128.0
    return data.astype(np.float32) / float(-int(np.iinfo(data.dtype).min))
