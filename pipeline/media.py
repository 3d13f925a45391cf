"""A clip's media, decoded once: frames by index, audio once, resampled once per rate.

`Media` implements `extractors.base.MediaView` with PyAV, out of a file, its frames and its sound.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from extractors.base import NoAudio
from pipeline.framedump import dump, read_jpegs
from pipeline.frames import Frames
from pipeline.mediafile import MISSING_S, MediaError, MediaFile
from pipeline.sound import Sound


class Media:
    """Decoded media of one clip, closed with `close` or a `with` block.

    Times are seconds from the clip's start: the file's first time stamp, or `start_s` inside a longer file.

    Args:
        path: of a media file.
        start_s: where the clip starts in the file.
        duration_s: length of the clip; None reads to the end of the file.
    Raises:
        MediaError: `absent`, `not-media`, `truncated`.
    """

    def __init__(self, path: Path | str, start_s: float = 0.0, duration_s: float | None = None) -> None:
        self.path = Path(path)
        self._file = MediaFile(self.path, start_s, duration_s)
        self._frames = Frames(self._file) if self._file.video is not None else None
        self._sound = Sound(self._file) if self._file.sound is not None else None
        self._jpegs: list[Path] | None = None
        self._jpeg_folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for part in (self._frames, self._sound, self._file):
            if part is not None:
                part.close()
        if self._jpeg_folder is not None:
            self._jpeg_folder.cleanup()

    # ---- facts --------------------------------------------------------------------------------------------------

    @property
    def has_video(self) -> bool:
        return self._frames is not None

    @property
    def has_audio(self) -> bool:
        return self._sound is not None

    @property
    def undecodable(self) -> tuple[str, ...]:
        """Of `video` and `audio`, what the file has in a coding that this FFmpeg has no decoder for."""
        return self._file.undecodable

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a decoded frame before rotation; zeros without video."""
        return (self._file.video.height, self._file.video.width) if self.has_video else (0, 0)

    @property
    def audio_rate_hz(self) -> int:
        """Sample rate of the file's audio; 0 without audio."""
        return self._sound.rate_hz if self.has_audio else 0

    @property
    def duration_s(self) -> float:
        """Length of the clip: as asked for, else the end of the longer of the two streams."""
        if self._file.length_s is not None:
            return self._file.length_s
        return max(self.video_end_s, self.audio_end_s)

    @property
    def stated_s(self) -> float:
        """Length that FFmpeg states; `duration_s` where it states none or the clip lies in a longer file."""
        return self.duration_s if self._file.length_s is not None else self._file.stated_s or self.duration_s

    @property
    def video_end_s(self) -> float:
        """End of the last frame; 0 without video."""
        return self._frames.end_s if self.has_video else 0.0

    @property
    def audio_end_s(self) -> float:
        """End of the decoded audio; 0 without audio."""
        return self._sound.end_s if self.has_audio else 0.0

    def check_whole(self) -> None:
        """Compare what is there with what the header promises; costs no decoding.

        Raises:
            MediaError: `truncated`.
        """
        end_s = self._file.packets.end_s
        end_s = max(self.video_end_s, self.audio_end_s if end_s is None else end_s)
        promised_s = self._file.promised_s - self._file.start_s
        if self._file.length_s is not None:
            promised_s = min(promised_s, self._file.length_s)
        if promised_s - end_s > MISSING_S:
            raise MediaError(
                "truncated",
                f"{self.path.name}: ends after {end_s:.2f} s, its header says {promised_s:.2f} s; fetch it again",
            )

    # ---- content ------------------------------------------------------------------------------------------------

    def timeline(self, source: str = "native") -> np.ndarray:
        """(N,) float64 seconds: see `MediaView.timeline`."""
        if not self.has_video:
            return np.zeros(0)
        return np.arange(len(self._dump())) / 8.0 if source == "jpeg-r8" else self._frames.timeline()

    def want(self, indices: np.ndarray) -> None:
        """Frames of the decoded stream that `frames` will be asked for next; others are dropped or skipped."""
        self._frames.want(indices)

    def frames(self, indices: np.ndarray, source: str = "native") -> np.ndarray:
        """(n, H, W, 3) uint8 RGB: see `MediaView.frames`.

        Raises:
            FramesMissing: fewer frames decode than the packets promise.
            MediaError: `no-video`.
        """
        if not self.has_video:
            raise MediaError("no-video", f"{self.path.name}: no video stream")
        indices = np.asarray(indices, dtype=np.int64).ravel()
        if source != "jpeg-r8":
            return self._frames.read(indices)
        paths = self._dump()
        order, inverse = np.unique(indices, return_inverse=True)
        return np.stack(list(read_jpegs([paths[index] for index in order])))[inverse]

    def recount(self) -> None:
        """Index the frames by decoding all of them, after `frames` ran into the end too early."""
        self._frames.recount()

    def _dump(self) -> list[Path]:
        """The LLP authors' 8 fps JPEG route; see `pipeline.framedump`."""
        if self._jpegs is None:
            self._jpeg_folder = tempfile.TemporaryDirectory(prefix="clave-frames-")
            self._jpegs = dump(self.path, Path(self._jpeg_folder.name), self._file.start_s, self._file.length_s)
        return self._jpegs

    def audio(self, rate_hz: int | None = None, mono: bool = True, resampler: str = "soxr_hq") -> np.ndarray:
        """(N,) or (C, N) float32: see `MediaView.audio`.

        Raises:
            extractors.base.NoAudio: no audio stream, or none of it decodes.
        """
        if not self.has_audio:
            raise NoAudio(f"{self.path.name}: no audio stream")
        return self._sound.read(rate_hz, mono, resampler)
