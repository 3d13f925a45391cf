"""Pictures along a clip, as JPEG data URIs, and its sound; whatever is missing comes back as a sentence."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from extractors.base import NoAudio
from pipeline.manifest import Clip
from pipeline.media import Media
from pipeline.mediafile import MediaError, find
from pipeline.reporting.gather import UNREADABLE
from pipeline.reporting.sound import RATE_HZ, Sound, sound

COUNT = 10
WIDTH = 144
_QUALITY = 72
#: Longer clips are shown without sound, and by their first minutes only: a page must not decode hours.
LONGEST_S = 600.0


@dataclass(frozen=True)
class Thumbnail:
    """A picture and the moment it shows."""

    time_s: float
    uri: str


@dataclass(frozen=True)
class Pictures:
    """What can be shown of a clip's media.

    Args:
        duration_s: length of the time axis.
        thumbnails: one per tenth of the axis, taken at its middle; empty without video.
        sound: None without audio.
        notes: why something is missing.
    """

    duration_s: float
    thumbnails: tuple[Thumbnail, ...]
    sound: Sound | None
    notes: tuple[str, ...]


def pictures(clip: Clip, folder: Path, count: int = COUNT) -> Pictures:
    """Open a clip and take its pictures; never fails on bad media."""
    notes: list[str] = []
    asked_s = min(clip.duration_s, LONGEST_S) if clip.duration_s else None
    try:
        path, whole = find(clip, folder)
        start_s = (clip.start_s or 0.0) if whole else 0.0
        with Media(path, start_s, clip.duration_s if whole else None) as media:
            duration_s = asked_s or min(media.video_end_s or LONGEST_S, LONGEST_S)
            wave = None
            if (clip.duration_s or media.video_end_s) > LONGEST_S:
                notes.append(f"longer than {LONGEST_S:.0f} s: only the beginning is shown, without sound")
            else:
                wave = _wave(media, asked_s, notes)
                if asked_s is None and not media.has_video and wave is not None:
                    duration_s = min(wave.end_s, LONGEST_S)
            return Pictures(duration_s, _thumbnails(media, duration_s, count, notes), wave, tuple(notes))
    except (MediaError, FFmpegError, *UNREADABLE) as error:
        return Pictures(asked_s or 10.0, (), None, (*notes, str(error)))


def _wave(media: Media, duration_s: float | None, notes: list[str]) -> Sound | None:
    try:
        wave = media.audio(RATE_HZ, mono=True)
        return sound(wave if duration_s is None else wave[: max(round(duration_s * RATE_HZ), 1)])
    except (NoAudio, MediaError, FFmpegError, *UNREADABLE) as error:
        notes.append(str(error))
        return None


def _thumbnails(media: Media, duration_s: float, count: int, notes: list[str]) -> tuple[Thumbnail, ...]:
    if not media.has_video:
        notes.append("no video stream")
        return ()
    try:
        timeline_s = media.timeline()
        if len(timeline_s) == 0:
            raise MediaError("no-video", "no frame can be decoded")
        times_s = (np.arange(count) + 0.5) / count * duration_s
        times_s = times_s[times_s <= media.video_end_s + 1.0]
        indices = np.clip(np.searchsorted(timeline_s, times_s, side="right") - 1, 0, len(timeline_s) - 1)
        made = []
        for time_s, index in zip(times_s, indices, strict=True):
            # One frame at a time: frames of a large video must not pile up.
            frame = media.frames(np.array([index]))[0]
            media.want(np.zeros(0, dtype=np.int64))
            made.append(Thumbnail(float(time_s), jpeg(frame)))
        return tuple(made)
    except (MediaError, FFmpegError, *UNREADABLE) as error:
        notes.append(str(error))
        return ()


def jpeg(frame: np.ndarray, width: int = WIDTH) -> str:
    """(H, W, 3) uint8 RGB as a small JPEG in a data URI."""
    from PIL import Image

    picture = Image.fromarray(frame)
    height = min(max(round(picture.height * width / picture.width), 1), 2 * width)
    file = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0).save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
