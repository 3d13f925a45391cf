"""A clip's media, decoded once: frames by index, audio once, resampled once per rate.

`Media` implements `extractors.base.MediaView` with PyAV.  Frames are decoded in order and converted to RGB only
if somebody wants them; `want` says which before a block of rows is prepared, so memory follows the block.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from extractors.base import NoAudio
from pipeline.manifest import Clip, check_relative
from pipeline.waveform import joined, resample, spooled, streamed, swresample, to_float

EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp")
AUDIO_EXTENSIONS = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")

# A file whose header promises more than this beyond what decodes was cut off, not merely rounded.
_TRUNCATED_S = 1.0
# Audio of longer clips lies in a file instead of in memory: 20 minutes of stereo are 420 MB.
_LONG_S = 120.0
# Frames that start within half a 60 Hz frame of a bound belong to it.
_SLACK_S = 1 / 120


class MediaError(Exception):
    """A clip's media cannot give rows; `outcome` is the reason's short name."""

    def __init__(self, outcome: str, message: str) -> None:
        self.outcome = outcome
        super().__init__(message)


class FramesMissing(MediaError):
    """Fewer frames decode than the packets promise: call `recount` and sample again."""


def find(clip: Clip, folder: Path) -> tuple[Path, bool]:
    """The clip's file and whether it must be cut out of a longer one.

    Looked for in this order: `clip.media`, `<id>.*`, `<source_id>.*` (both already the clip), and
    `full/<source_id>.*`, the whole source video, where the clip starts at `clip.start_s`.

    Raises:
        MediaError: outcome `absent`.
    """
    folder = Path(folder)
    if clip.media is not None:
        path = folder / check_relative(clip.media)
        if path.is_file():
            return path, False
        raise MediaError("absent", f"clip {clip.id}: no file {clip.media} in the media folder")
    for stem, whole in ((clip.id, False), (clip.source_id, False), (f"full/{clip.source_id}", True)):
        for extension in EXTENSIONS + AUDIO_EXTENSIONS:
            path = folder / (stem + extension)
            if path.is_file() and not (whole and clip.start_s is None):
                return path, whole
    raise MediaError("absent", f"clip {clip.id}: no {clip.id}.* , {clip.source_id}.* or full/{clip.source_id}.*")


class Media:
    """Decoded media of one clip, closed with `close` or a `with` block.

    Times are seconds from the clip's start: the file's first time stamp, or `start_s` inside a longer file.

    Args:
        path: of a media file.
        start_s: where the clip starts in the file.
        duration_s: length of the clip; None reads to the end of the file.
    Raises:
        MediaError: `absent`, `not-media`.
    """

    def __init__(self, path: Path | str, start_s: float = 0.0, duration_s: float | None = None) -> None:
        self.path = Path(path)
        self._start_s, self._length_s = start_s, duration_s
        self._container = self._open()
        self._origin_s = (self._container.start_time or 0) / av.time_base
        self._video = self._container.streams.video[0] if self._container.streams.video else None
        if self._video is not None and self._video.disposition & av.stream.Disposition.attached_pic:
            self._video = None  # cover art of an audio file
        self._has_audio = bool(self._container.streams.audio)
        if self._video is None and not self._has_audio:
            raise MediaError("not-media", f"{self.path.name}: neither a video nor an audio stream")
        self._promised_s = (self._container.duration or 0) / av.time_base
        self._timeline: np.ndarray | None = None
        # Where a time stamp is in the timeline; None: frames have to be counted, and none may be skipped.
        self._places: dict[int, int] | None = None
        self._audio_packets_end_s: float | None = None
        self._decoder: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._position = 0
        self._cache: dict[int, np.ndarray] = {}
        self._wanted: set[int] = set()
        self._keep: set[int] = set()
        self._horizon = 0
        self._waves: dict[tuple, np.ndarray] = {}
        self._jpegs: list[Path] | None = None
        self._jpeg_folder: tempfile.TemporaryDirectory | None = None

    def _open(self) -> av.container.InputContainer:
        try:
            if self.path.stat().st_size == 0:
                raise MediaError("not-media", f"{self.path.name}: the file is empty")
            return av.open(str(self.path))
        except FileNotFoundError as error:
            raise MediaError("absent", f"{self.path.name}: no such file") from error
        except FFmpegError as error:
            outcome = "truncated" if _looks_cut(self.path) else "not-media"
            raise MediaError(outcome, f"{self.path.name}: {error.strerror}") from error

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()
        self._cache.clear()
        self._waves.clear()
        if self._jpeg_folder is not None:
            self._jpeg_folder.cleanup()

    # ---- facts --------------------------------------------------------------------------------------------------

    @property
    def has_video(self) -> bool:
        return self._video is not None

    @property
    def has_audio(self) -> bool:
        return self._has_audio

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a decoded frame before rotation."""
        return (self._video.height, self._video.width) if self._video is not None else (0, 0)

    @property
    def audio_rate_hz(self) -> int:
        """Sample rate of the file's audio; 0 without audio."""
        return self._container.streams.audio[0].rate if self._has_audio else 0

    @property
    def duration_s(self) -> float:
        """Length of the clip: as asked for, else the end of the longer of the two streams."""
        if self._length_s is not None:
            return self._length_s
        return max(self.video_end_s, self.audio_end_s)

    @property
    def stated_s(self) -> float:
        """Length that the header states; `duration_s` where it states none or the clip lies in a longer file."""
        return self.duration_s if self._length_s is not None else self._promised_s or self.duration_s

    @property
    def video_end_s(self) -> float:
        """End of the last frame; 0 without video."""
        timeline_s = self.timeline()
        if len(timeline_s) == 0:
            return 0.0
        step_s = float(np.median(np.diff(timeline_s))) if len(timeline_s) > 1 else 1.0 / float(self._rate())
        return float(timeline_s[-1]) + step_s

    @property
    def audio_end_s(self) -> float:
        """End of the decoded audio; 0 without audio."""
        if not self._has_audio:
            return 0.0
        return self._native().shape[1] / self.audio_rate_hz

    def _rate(self) -> float:
        return float(self._video.average_rate or self._video.guessed_rate or 25)

    def check_whole(self) -> None:
        """Compare what is there with what the header promises; costs no decoding.

        Raises:
            MediaError: `truncated`.
        """
        self.timeline()  # reads the packets
        sound_end_s = self.audio_end_s if self._audio_packets_end_s is None else self._audio_packets_end_s
        end_s = max(self.video_end_s, sound_end_s)
        promised_s = self._promised_s - self._start_s
        if self._length_s is not None:
            promised_s = min(promised_s, self._length_s)
        if promised_s - end_s > _TRUNCATED_S:
            raise MediaError(
                "truncated",
                f"{self.path.name}: ends after {end_s:.2f} s, its header says {promised_s:.2f} s; fetch it again",
            )

    # ---- video --------------------------------------------------------------------------------------------------

    def timeline(self, source: str = "native") -> np.ndarray:
        """(N,) float64 seconds: see `MediaView.timeline`."""
        if source == "jpeg-r8":
            return np.arange(len(self._dump())) / 8.0
        if self._timeline is None:
            self._timeline = self._index()
        return self._timeline

    def _index(self) -> np.ndarray:
        """Presentation times from the packets, which costs no decoding; `frames` checks them while it decodes."""
        stamps: list[int] = []
        sound_end_s = None
        try:
            # Nothing else reads packets from this container, so it stands at its beginning.
            for packet in self._container.demux([*filter(None, [self._video]), *self._container.streams.audio[:1]]):
                if packet.pts is None or packet.is_discard:
                    continue
                if packet.stream is self._video:
                    stamps.append(packet.pts)
                else:
                    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    sound_end_s = max(end_s, sound_end_s or 0.0)
        except FFmpegError:
            return self._count() if self._video is not None else np.zeros(0)
        if sound_end_s is not None:
            self._audio_packets_end_s = sound_end_s - self._origin_s - self._start_s
        if not stamps:
            return np.zeros(0)
        stamps.sort()
        times_s = np.array([float(stamp * self._video.time_base) for stamp in stamps]) - self._origin_s - self._start_s
        inside = self._inside(times_s)
        stamps = [stamps[place] for place in np.flatnonzero(inside)]
        places = {stamp: place for place, stamp in enumerate(stamps)}
        if len(places) == len(stamps):
            self._places = places
        return times_s[inside]

    def _video_number(self) -> int:
        return self._container.streams.video.index(self._video)

    def _inside(self, times_s: np.ndarray) -> np.ndarray:
        """Which times, in seconds from the clip's start, belong to the clip."""
        inside = np.ones(len(times_s), dtype=bool)
        if self._start_s > 0:
            inside &= times_s >= -_SLACK_S
        if self._length_s is not None:
            inside &= times_s < self._length_s - _SLACK_S
        return inside

    def _count(self) -> np.ndarray:
        """Presentation times of the frames that really decode."""
        self._places = None
        times_s = np.sort(np.array([frame.time for _, frame in self._decode()], dtype=np.float64))
        return times_s - self._origin_s - self._start_s

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their numbers from a fresh container, in presentation order; ends quietly where the data does.

        Frames that nobody wants and that no other frame refers to are not decoded, where time stamps tell which they
        are; a number is -1 where a frame has a time stamp that no packet had.
        """
        number = -1
        with self._open() as container:
            stream = container.streams.video[self._video_number()]
            stream.thread_type = "NONE"
            if self._start_s > 1.0:
                container.seek(int((self._origin_s + self._start_s - 0.5) * av.time_base), backward=True)
            try:
                for packet in container.demux(stream):
                    if self._places is not None:
                        place = self._places.get(packet.pts, -1)
                        # What lies beyond the last frame that is wanted now may be wanted for the next rows.
                        idle = place not in self._keep and 0 <= place < self._horizon
                        stream.codec_context.skip_frame = "NONREF" if idle else "DEFAULT"
                    for frame in packet.decode():
                        if frame.time is None:
                            continue
                        time_s = frame.time - self._origin_s - self._start_s
                        if self._start_s > 0 and time_s < -_SLACK_S:
                            continue
                        if self._length_s is not None and time_s >= self._length_s - _SLACK_S:
                            return
                        number = number + 1 if self._places is None else self._places.get(frame.pts, -1)
                        yield number, frame
            except FFmpegError:
                return  # a damaged tail; the count of frames tells

    def want(self, indices: np.ndarray) -> None:
        """Frames of the decoded stream that `frames` will be asked for next; others are dropped or skipped."""
        self._wanted = {int(index) for index in np.unique(indices)}
        for index in [index for index in self._cache if index not in self._wanted]:
            del self._cache[index]

    def frames(self, indices: np.ndarray, source: str = "native") -> np.ndarray:
        """(n, H, W, 3) uint8 RGB: see `MediaView.frames`.

        Raises:
            FramesMissing: fewer frames decode than the packets promise.
            MediaError: `no-video`.
        """
        indices = np.asarray(indices, dtype=np.int64).ravel()
        if source == "jpeg-r8":
            from pipeline.framedump import read_jpegs

            paths = self._dump()
            order, inverse = np.unique(indices, return_inverse=True)
            return np.stack(list(read_jpegs([paths[index] for index in order])))[inverse]
        if self._video is None:
            raise MediaError("no-video", f"{self.path.name}: no video stream")
        needed = {int(index) for index in indices}
        if not needed <= self._cache.keys():
            self._read(needed)
        return np.stack([self._cache[int(index)] for index in indices])

    def _read(self, needed: set[int]) -> None:
        """Decode forward until every needed frame is in the cache, keeping the wanted ones on the way."""
        self.timeline()  # tells which time stamp is which frame
        missing = needed - self._cache.keys()
        self._keep = needed | self._wanted
        self._horizon = max(self._keep)
        if self._decoder is None or min(missing) < self._position:
            self._decoder, self._position = self._decode(), 0
        while missing:
            number, frame = next(self._decoder, (-1, None))
            if number < 0 and self._places is not None:
                # Time stamps of this file do not tell its frames: count them, all of them, also those told before.
                self._places, self._decoder, self._position = None, self._decode(), 0
                self._cache.clear()
                missing = set(needed)
                continue
            if number < 0:
                raise FramesMissing(
                    "decode-error",
                    f"{self.path.name}: frame {max(missing)} of {len(self.timeline())} does not decode; "
                    f"{self._position} frames do",
                )
            if number in self._keep and number not in self._cache:
                self._cache[number] = _upright(frame)
            missing.discard(number)
            self._position = number + 1

    def recount(self) -> None:
        """Index the frames by decoding all of them, after `frames` ran into the end too early."""
        self._timeline, self._decoder, self._position = self._count(), None, 0
        self._cache.clear()

    def _dump(self) -> list[Path]:
        """The LLP authors' 8 fps JPEG route; see `pipeline.framedump`."""
        if self._jpegs is None:
            from pipeline.framedump import dump

            if self._video is None:
                return []
            self._jpeg_folder = tempfile.TemporaryDirectory(prefix="clave-frames-")
            self._jpegs = dump(self.path, Path(self._jpeg_folder.name), self._start_s, self._length_s)
        return self._jpegs

    # ---- audio --------------------------------------------------------------------------------------------------

    def audio(self, rate_hz: int | None = None, mono: bool = True, resampler: str = "soxr_hq") -> np.ndarray:
        """(N,) or (C, N) float32: see `MediaView.audio`.

        Raises:
            extractors.base.NoAudio: no audio stream, or none of it decodes.
        """
        if not self._has_audio:
            raise NoAudio(f"{self.path.name}: no audio stream")
        key = (rate_hz, mono, resampler)
        if key not in self._waves:
            wave = self._native()
            if wave.shape[1] == 0:
                raise NoAudio(f"{self.path.name}: the audio stream holds no samples")
            other_rate = rate_hz not in (None, self.audio_rate_hz)
            if resampler == "swr" and other_rate:
                wave = swresample(wave, self.audio_rate_hz, rate_hz)
                wave = wave.mean(axis=0) if mono else wave
            elif isinstance(wave, np.memmap) and resampler == "soxr_hq" and (mono or other_rate):
                wave = self._gather(streamed(wave, self.audio_rate_hz, rate_hz or self.audio_rate_hz, mono))
                wave = wave[0] if mono else wave
            else:
                wave = wave.mean(axis=0) if mono else wave
                if other_rate:
                    wave = resample(wave, self.audio_rate_hz, rate_hz, resampler)
            self._waves[key] = wave if isinstance(wave, np.memmap) else np.ascontiguousarray(wave, dtype=np.float32)
        return self._waves[key]

    def _native(self) -> np.ndarray:
        """(C, N) float32 at the file's own rate, starting at the clip's start."""
        if "native" not in self._waves:
            self._waves["native"] = self._gather(self._audio_pieces())
        return self._waves["native"]

    def _gather(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """(C, N) of (C, n) pieces: in memory, or in a file without a name where the clip is long."""
        length_s = self._length_s if self._length_s is not None else self._promised_s - self._start_s
        return joined(pieces) if length_s <= _LONG_S else spooled(pieces)

    def _audio_pieces(self) -> Iterator[np.ndarray]:
        """(C, n) float32, cut or continued with leading silence so that the first sample is the clip's start."""
        rate_hz = self.audio_rate_hz
        stop_s = None if self._length_s is None else self._start_s + self._length_s
        room = np.inf if self._length_s is None else round(self._length_s * rate_hz)
        channels, skip = None, 0
        with self._open() as container:
            stream = container.streams.audio[0]
            if self._start_s > 1.0:
                container.seek(int((self._origin_s + self._start_s - 1.0) * av.time_base), backward=True)
            try:
                for frame in container.decode(stream):
                    time_s = None if frame.time is None else frame.time - self._origin_s
                    if time_s is not None and stop_s is not None and time_s >= stop_s:
                        break
                    samples = to_float(frame)
                    if channels is None:
                        channels = len(samples)
                        lead = round(((time_s or 0.0) - self._start_s) * rate_hz)
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
                return  # a damaged tail; `check_whole` compares the length with the header


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as the file's display matrix asks, which players and OpenCV do too."""
    picture = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _looks_cut(path: Path) -> bool:
    """An MP4 that starts well but has no `moov` atom: the download stopped before the end."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp"
