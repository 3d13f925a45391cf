"""A `MediaView` made of numpy arrays, for tests of encoders: no file, no codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class FakeMedia:
    """One clip in memory.

    Args:
        samples: (C, N) or (N,) float32 in [-1, 1]; None for a clip without audio.
        rate_hz: of `samples`.
        pictures: (n, H, W, 3) uint8 RGB; None for a clip without video.
        fps: of `pictures`, constant.
        duration_s: default the longer of the two streams.
        dumps: pictures of other sources, such as {"jpeg-r8": (m, H, W, 3) uint8} at 8 pictures a second.
    """

    def __init__(
        self,
        samples: np.ndarray | None = None,
        rate_hz: int = 16_000,
        pictures: np.ndarray | None = None,
        fps: float = 25.0,
        duration_s: float | None = None,
        dumps: dict[str, np.ndarray] | None = None,
    ) -> None:
        self._samples = np.zeros((1, 0), np.float32) if samples is None else np.atleast_2d(samples).astype(np.float32)
        self._pictures = np.zeros((0, 1, 1, 3), np.uint8) if pictures is None else pictures
        self._fps = fps
        self._dumps = dumps or {}
        self.audio_rate_hz = rate_hz if samples is not None else 0
        streams_s = (self._samples.shape[1] / rate_hz, len(self._pictures) / fps)
        self.duration_s = max(streams_s) if duration_s is None else duration_s
        self.stated_s = self.duration_s

    def timeline(self, source: str = "native") -> np.ndarray:
        if source == "native":
            return np.arange(len(self._pictures)) / self._fps
        return np.arange(len(self._dumps.get(source, self._pictures))) / 8.0

    def frames(self, indices: np.ndarray, source: str = "native") -> np.ndarray:
        return self._dumps.get(source, self._pictures)[np.asarray(indices)]

    def audio(self, rate_hz: int | None = None, mono: bool = True, resampler: str = "soxr_hq") -> np.ndarray:
        samples = self._samples.mean(axis=0, keepdims=True) if mono else self._samples
        if rate_hz is not None and rate_hz != self.audio_rate_hz and samples.shape[1]:
            samples = _RESAMPLERS[resampler](samples, self.audio_rate_hz, rate_hz)
        return samples[0] if mono else samples


def _soxr(samples: np.ndarray, old_hz: int, new_hz: int) -> np.ndarray:
    import soxr

    return soxr.resample(samples.T, old_hz, new_hz, quality="HQ").T.astype(np.float32)


def _resampy(samples: np.ndarray, old_hz: int, new_hz: int) -> np.ndarray:
    import resampy

    return resampy.resample(samples.astype(np.float64), old_hz, new_hz, filter="kaiser_best", axis=-1).astype(
        np.float32
    )


def _swr(samples: np.ndarray, old_hz: int, new_hz: int) -> np.ndarray:
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate = old_hz
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=new_hz)
    parts = [np.zeros((len(samples), 0), np.float32)]
    parts += [part.to_ndarray() for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(parts, axis=1)


_RESAMPLERS = {"soxr_hq": _soxr, "kaiser_best": _resampy, "swr": _swr}


def read_wav(path: Path) -> FakeMedia:
    """A 16-bit wav file as media, without the pipeline's decoder."""
    import soundfile

    samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    return FakeMedia(samples.T.astype(np.float32) / 32_768, rate_hz)
