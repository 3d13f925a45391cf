"""The sound of a clip: its audio stream decoded once, and resampled once per rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from av.error import FFmpegError

from extractors.base import NoAudio
from pipeline.mediafile import MediaFile
from pipeline.waveform import joined, resample, spooled, streamed, swresample, to_float

# Audio of longer clips lies in a file instead of in memory: 20 minutes of stereo are 420 MB.
_LONG_S = 120.0


class Sound:
    """Decoded audio by rate, channels and resampler.

    Args:
        file: with an audio stream.
    """

    def __init__(self, file: MediaFile) -> None:
        self.file = file
        self.rate_hz: int = file.sound.rate
        self._waves: dict[tuple | str, np.ndarray] = {}

    def close(self) -> None:
        self._waves.clear()

    @property
    def end_s(self) -> float:
        """End of the decoded audio."""
        return self._native().shape[1] / self.rate_hz

    def read(self, rate_hz: int | None, mono: bool, resampler: str) -> np.ndarray:
        """(N,) or (C, N) float32: see `MediaView.audio`.

        Raises:
            extractors.base.NoAudio: none of the stream decodes.
        """
        key = (rate_hz, mono, resampler)
        if key not in self._waves:
            wave = self._native()
            if wave.shape[1] == 0:
                raise NoAudio(f"{self.file.path.name}: the audio stream holds no samples")
            other_rate = rate_hz not in (None, self.rate_hz)
            if resampler == "swr" and other_rate:
                wave = swresample(wave, self.rate_hz, rate_hz)
                wave = wave.mean(axis=0) if mono else wave
            elif isinstance(wave, np.memmap) and resampler == "soxr_hq" and (mono or other_rate):
                wave = self._gather(streamed(wave, self.rate_hz, rate_hz or self.rate_hz, mono))
                wave = wave[0] if mono else wave
            else:
                wave = wave.mean(axis=0) if mono else wave
                if other_rate:
                    wave = resample(wave, self.rate_hz, rate_hz, resampler)
            self._waves[key] = wave if isinstance(wave, np.memmap) else np.ascontiguousarray(wave, dtype=np.float32)
        return self._waves[key]

    def _native(self) -> np.ndarray:
        """(C, N) float32 at the file's own rate, starting at the clip's start."""
        if "native" not in self._waves:
            self._waves["native"] = self._gather(self._pieces())
        return self._waves["native"]

    def _gather(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """(C, N) of (C, n) pieces: in memory, or in a file without a name where the clip is long."""
        length_s = self.file.promised_s - self.file.start_s if self.file.length_s is None else self.file.length_s
        return joined(pieces) if length_s <= _LONG_S else spooled(pieces)

    def _pieces(self) -> Iterator[np.ndarray]:
        """(C, n) float32, cut or continued with leading silence so that the first sample is the clip's start."""
        length_s = self.file.length_s
        room = np.inf if length_s is None else round(length_s * self.rate_hz)
        channels, skip = None, 0
        with self.file.open(before_s=1.0, pictures=False) as container:
            try:
                for frame in container.decode(container.streams[self.file.sound.index]):
                    time_s = None if frame.time is None else self.file.since_start_s(frame.time)
                    if time_s is not None and length_s is not None and time_s >= length_s:
                        break
                    samples = to_float(frame)
                    if channels is None:
                        channels = len(samples)
                        lead = round((time_s if time_s is not None else -self.file.start_s) * self.rate_hz)
                        skip = max(-lead, 0)
                        samples = np.pad(samples, ((0, 0), (max(lead, 0), 0)))
                    if len(samples) != channels:
                        break  # the channel layout changed in mid stream; what follows cannot be appended
                    piece = samples[:, skip:]
                    skip = max(skip - samples.shape[1], 0)
                    piece = piece[:, : int(min(room, piece.shape[1]))]
                    room -= piece.shape[1]
                    if piece.shape[1]:
                        yield piece
            except FFmpegError:
                return  # a damaged tail; `Media.check_whole` compares the length with the header
