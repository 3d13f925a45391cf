"""Samples of a decoded audio stream: to float, and to another rate by a named resampler."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import av
import numpy as np

# Samples per channel that are worked on at once where a wave does not fit into memory.
_STREAMED = 1 << 20
# Of FFmpeg's sample formats, without the `p` of those that keep each channel in a plane of its own.
_DTYPES = {
    name: np.dtype(code)
    for name, code in {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}.items()
}


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
    """The same in a file that has no name and vanishes with the array, so that it does not count as memory.

    Raises:
        OSError: it cannot be written; the error names the folder of temporary files.
    """
    channels = 1
    with tempfile.TemporaryFile(prefix="clave-audio-", buffering=0) as file:
        for piece in pieces:
            channels = len(piece)
            _write(file, memoryview(np.ascontiguousarray(piece.T, dtype=np.float32)).cast("B"))
        if file.tell() == 0:
            return np.zeros((1, 0), dtype=np.float32)
        return np.memmap(file, np.float32, mode="r").reshape(-1, channels).T


def _write(file: BinaryIO, data: memoryview) -> None:
    """All of the data, into a file without a buffer, so that nothing is left to write when it is closed."""
    while data:
        try:
            data = data[file.write(data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


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
    return np.stack([_swresampled(np.ascontiguousarray(channel, np.float32), from_hz, to_hz) for channel in wave])


def _swresampled(channel: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(N,) float32; one channel at a time, since swresample mixes none here and knows few layouts of many."""
    frame = av.AudioFrame.from_ndarray(channel[None], format="fltp", layout="mono")
    frame.rate = from_hz
    resampler = av.AudioResampler(format="s16p", layout="mono", rate=to_hz)
    parts = [part.to_ndarray()[0] for part in [*resampler.resample(frame), *resampler.resample(None)]]
    return np.concatenate(parts).astype(np.float32) / 32768.0


def to_float(frame: av.AudioFrame) -> np.ndarray:
    """(C, n) float32 in [-1, 1] of any sample format."""
    channels, samples = frame.layout.nb_channels, frame.samples
    # Of eight channels and more, PyAV lists planes that are not there, and reading them kills the process.
    planes = frame.planes[:channels]
    dtype = _DTYPES[frame.format.name.removesuffix("p")]
    if frame.format.is_planar:
        made = np.empty((channels, samples), dtype=np.float32)
        for channel, plane in zip(made, planes, strict=True):
            channel[:] = np.frombuffer(plane, dtype, samples)
    else:
        made = np.frombuffer(planes[0], dtype, samples * channels).reshape(samples, channels).T.astype(np.float32)
    if dtype.kind == "u":
        return (made - np.float32(128)) / np.float32(128)
    return made if dtype.kind == "f" else made / np.float32(-int(np.iinfo(dtype).min))
