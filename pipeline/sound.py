"""The sound of a clip: its audio stream decoded once, and resampled once per rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
import numpy as np

from extractors.base import NoAudio
from pipeline.mediafile import MISSING_S, MediaError, MediaFile
from pipeline.waveform import joined, resample, spooled, streamed, swresample, to_float

# Audio of longer clips lies in a file instead of in memory: 20 minutes of stereo are 420 MB.
_LONG_S = 120.0
# Time stamps that differ less from the count of samples are rounded, not wrong: `min_hard_comp` of ffmpeg's aresample.
_JITTER_S = 0.1
# Time stamps that jump by more, where nothing says how long the file is, begin anew: ffmpeg's `dts_delta_threshold`.
_JUMP_S = 10.0
# Samples of silence given at once.
_SILENCE = 1 << 20


class Sound:
    """Decoded audio by rate, channels and resampler.

    Args:
        file: with an audio stream.
    """

    def __init__(self, file: MediaFile) -> None:
        self.file = file
        self.rate_hz: int = file.sound.rate
        self._waves: dict[tuple | str, np.ndarray] = {}
        self._lost_s = 0.0

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
            MediaError: `decode-error`, much of it does not.
        """
        key = (rate_hz, mono, resampler)
        if key not in self._waves:
            wave = self._native()
            if wave.shape[1] == 0:
                raise NoAudio(f"{self.file.path.name}: the audio stream holds no samples")
            if self._lost_s > MISSING_S:
                raise MediaError(
                    "decode-error",
                    f"{self.file.path.name}: {self._lost_s:.2f} s of its sound do not decode; fetch it again",
                )
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
        length_s = self.file.stated_s - self.file.start_s if self.file.length_s is None else self.file.length_s
        return joined(pieces) if length_s <= _LONG_S else spooled(pieces)

    def _pieces(self) -> Iterator[np.ndarray]:
        """(C, n) float32 from the clip's start to its end."""
        length_s = self.file.length_s
        for place, samples in self._placed():
            stop = place + samples.shape[1] if length_s is None else round(length_s * self.rate_hz)
            piece = samples[:, max(-place, 0) : max(stop - place, 0)]
            if piece.shape[1]:
                yield piece

    def _placed(self) -> Iterator[tuple[int, np.ndarray]]:
        """(C, n) float32, each piece where the one before ends, and how many samples after the clip's start that is.

        Where time stamps leave a gap there is silence; of sound that overlaps, the earlier stays.
        """
        place, moves = None, True
        for time_s, samples, broken in self._decode():
            if place is None:
                due = round((-self.file.start_s if time_s is None else time_s) * self.rate_hz)
                place = min(due, 0)
            else:
                due = place if time_s is None else round(time_s * self.rate_hz)
            if moves or self._moves(due, place, samples.shape[1], broken):
                for start in range(place, due, _SILENCE):
                    yield start, np.zeros((len(samples), min(_SILENCE, due - start)), dtype=np.float32)
                samples = samples[:, max(place - due, 0) :]
                place = max(place, due)
            yield place, samples
            place += samples.shape[1]
            moves = samples.shape[1] == 0  # the overlap is longer than these samples

    def _moves(self, due: int, place: int, count: int, broken: bool) -> bool:
        """Whether `count` samples that are due at another place than after the last ones belong there.

        Args:
            broken: something between them did not decode.
        """
        away_s = abs(due - place) / self.rate_hz
        if away_s <= (0.5 * count / self.rate_hz if broken else max(count / self.rate_hz, _JITTER_S)):
            return False
        promised_s = 0.0 if self.file.restarts else self.file.promised_s
        if promised_s == 0.0:
            return away_s <= _JUMP_S
        return due / self.rate_hz <= promised_s - self.file.start_s + MISSING_S

    def _decode(self) -> Iterator[tuple[float | None, np.ndarray, bool]]:
        """Time in s from the clip's start, (C, n) float32, and whether something since the last ones did not decode.

        What does not decode is left out, and so is what has another rate or other channels than the rest, or samples
        that are no numbers: from NaN some backends make rows that look like any other.
        """
        length_s, channels, broken = self.file.length_s, None, False
        self._lost_s = 0.0
        with self.file.open(before_s=1.0, pictures=False) as container:
            for packet in self.file.demux(container, container.streams[self.file.sound.index]):
                frames = self.file.decode(packet)
                broken |= frames is None
                if not frames:
                    self._lost_s += self._inside_s(packet)
                for frame in frames or ():
                    time_s = None if frame.time is None else self.file.since_start_s(frame.time)
                    if time_s is not None and length_s is not None and time_s >= length_s:
                        return
                    channels = channels or frame.layout.nb_channels
                    samples = None
                    if (frame.layout.nb_channels, frame.sample_rate) == (channels, self.rate_hz):
                        samples = to_float(frame)
                    if samples is None or not np.isfinite(samples).all():
                        broken = True
                        self._lost_s += frame.samples / frame.sample_rate
                        continue
                    yield time_s, samples, broken
                    broken = False

    def _inside_s(self, packet: av.Packet) -> float:
        """Seconds of the clip that a packet holds."""
        if packet.pts is None or packet.is_discard or not packet.duration:
            return 0.0
        start_s = self.file.since_start_s(float(packet.pts * packet.time_base))
        stop_s = start_s + float(packet.duration * packet.time_base)
        return max(min(stop_s, np.inf if self.file.length_s is None else self.file.length_s) - max(start_s, 0.0), 0.0)
