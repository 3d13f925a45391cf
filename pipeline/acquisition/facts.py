"""What is in a media file, found by decoding it, and whether that is the clip that was asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Containers that are opened.  Playlists are not among them: they can name other files and addresses.
CONTAINERS = "mov,matroska,webm,avi,flv,mpeg,mpegts,asf,ogg,wav,mp3,flac,aac"
_SAFE_OPEN = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
# A file whose header promises more than this beyond what decodes was cut off, not merely rounded.
_TRUNCATED_S = 1.0
_PICTURES_PER_S = 4.0
_BLACK_LEVEL = 32  # of 255; a picture is black if 98 % of it is darker
_STILL_DIFFERENCE = 0.5  # mean grey levels between two pictures that look the same


class BadMedia(Exception):
    """A file is not the clip; `outcome` is the reason's short name."""

    def __init__(self, outcome: str, message: str) -> None:
        self.outcome, self.message = outcome, message
        super().__init__(message)


@dataclass(frozen=True)
class Facts:
    """What decoding found, within the window looked at.

    Args:
        duration_s: end of the longer stream; video_s and audio_s are the ends of each, 0 without it.
        frames: decoded video frames.
        fps: frames per second of video, by their times.
        loudness_lufs, peak_db: -120 for silence; None without audio.
        black_share, still_share: share of the pictures looked at, four a second, that are black, or equal to the
            one before them; None without two pictures.
    """

    duration_s: float
    video_s: float
    audio_s: float
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    video_codec: str = ""
    audio_codec: str = ""
    audio_rate_hz: int = 0
    audio_channels: int = 0
    loudness_lufs: float | None = None
    peak_db: float | None = None
    black_share: float | None = None
    still_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def probe(path: Path) -> tuple[float, str]:
    """Duration in seconds, by `pipeline.duration` (0 if none), and the file name ending of the container.

    Raises:
        BadMedia: `not-media` or `truncated`.
        AccessError: this machine, and not the file, is at fault.
    """
    from pipeline.duration import length_s

    with _open(path) as container:
        ending = _ending(container.format.name, bool(container.streams.video))
        return length_s(container, path) or 0.0, ending


def inspect(path: Path, start_s: float = 0.0, duration_s: float | None = None) -> Facts:
    """Decode every frame and every sample of a file, or of a window of it.

    Args:
        start_s, duration_s: the window; None reads to the end.
    Raises:
        BadMedia: `not-media`, `truncated` or `decode-error`.
        AccessError: this machine, and not the file, is at fault.
    """
    import av

    from pipeline.access import check_access
    from pipeline.duration import promised_s
    from pipeline.mediafile import decodable

    with _open(path) as container:
        cover = av.stream.Disposition.attached_pic
        video = decodable(stream for stream in container.streams.video if not stream.disposition & cover)
        audio = decodable(container.streams.audio)
        streams = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise BadMedia("not-media", f"{path.name}: neither a video nor an audio stream that can be decoded")
        origin_s = (container.start_time or 0) / av.time_base
        header_s = promised_s(container, path)
        if start_s > 1.0:
            container.seek(int((origin_s + start_s - 1.0) * av.time_base), backward=True)
        pictures, sounds, errors, others_end_s = _Pictures(), None, [], 0.0
        done = set()
        for stream in streams:
            stream.thread_type = "NONE"
        try:
            for packet in container.demux():
                if packet.stream not in streams:
                    if packet.pts is not None:
                        end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        others_end_s = max(others_end_s, end_s - origin_s - start_s)
                    continue
                if packet.stream.index in done:
                    if len(done) == len(streams):
                        break
                    continue
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    check_access(error, path)
                    errors.append(error.strerror)
                    continue
                for frame in frames:
                    if frame.time is None:
                        continue
                    time_s = frame.time - origin_s - start_s
                    if duration_s is not None and time_s >= duration_s:
                        done.add(packet.stream.index)
                    elif packet.stream is video:
                        if time_s > -1 / 120:
                            pictures.add(frame, time_s)
                    else:
                        sounds = sounds or _Sounds(frame)
                        sounds.add(frame, time_s)
        except av.FFmpegError as error:
            check_access(error, path)
            errors.append(error.strerror)
        facts = _facts(video, audio, pictures, sounds)
    wanted_s = header_s - start_s if duration_s is None else min(header_s - start_s, duration_s)
    # A header's length is that of the longest stream, be it subtitles or a second sound track.
    if wanted_s - max(facts.duration_s, others_end_s) > _TRUNCATED_S:
        raise BadMedia(
            "truncated", f"{path.name}: decodes to {facts.duration_s:.2f} s, its header says {wanted_s:.2f} s"
        )
    if errors:
        raise BadMedia("decode-error", f"{path.name}: {len(errors)} packet(s) do not decode, the first: {errors[0]}")
    return facts


def judge(facts: Facts, name: str, duration_s: float | None, tolerance_s: float, need: str = "both") -> None:
    """Whether the facts are those of a clip of `duration_s` seconds.

    Args:
        duration_s: None where the length is not known.
        tolerance_s: how much either stream may end before or after that.
        need: `both`, `audio`, `video` or `any` stream.
    Raises:
        BadMedia: `no-video`, `no-audio`, `too-short` or `wrong-length`.
    """
    wanted = {"both": ("video", "audio"), "audio": ("audio",), "video": ("video",), "any": ()}[need]
    ends_s = {"video": facts.video_s, "audio": facts.audio_s}
    has = {"video": facts.frames > 0, "audio": facts.audio_s > 0}
    for stream in wanted:
        if not has[stream]:
            raise BadMedia(f"no-{stream}", f"{name}: no {stream} stream, or none of it decodes")
    if duration_s is None:
        return
    for stream in wanted:
        if ends_s[stream] < duration_s - tolerance_s:
            raise BadMedia("too-short", f"{name}: {stream} ends at {ends_s[stream]:.2f} s of {duration_s:.2f} s")
    if not wanted and facts.duration_s < duration_s - tolerance_s:
        raise BadMedia("too-short", f"{name}: ends at {facts.duration_s:.2f} s of {duration_s:.2f} s")
    if facts.duration_s > duration_s + max(tolerance_s, _TRUNCATED_S):
        raise BadMedia(
            "wrong-length",
            f"{name}: lasts {facts.duration_s:.2f} s, the annotation says {duration_s:.2f} s, "
            "and where the clip lies in it is not known",
        )


class _Pictures:
    """Counts frames and looks at a small grey picture of some."""

    def __init__(self) -> None:
        self.count, self.first_s, self.last_s, self.step_s = 0, 0.0, 0.0, 0.04
        self._looked_s = -np.inf
        self._before: np.ndarray | None = None
        self.looked = self.black = self.still = 0

    def add(self, frame: Any, time_s: float) -> None:
        if self.count == 0:
            self.first_s = time_s
        elif time_s > self.last_s:
            self.step_s = time_s - self.last_s
        self.count, self.last_s = self.count + 1, max(time_s, self.last_s)
        if time_s - self._looked_s < 1 / _PICTURES_PER_S - 1e-6:
            return
        self._looked_s = time_s
        small = frame.reformat(width=64, height=36, format="gray").to_ndarray().astype(np.float32)
        self.looked += 1
        self.black += bool((small <= _BLACK_LEVEL).mean() >= 0.98)
        if self._before is not None:
            self.still += bool(np.abs(small - self._before).mean() < _STILL_DIFFERENCE)
        self._before = small


class _Sounds:
    """Counts samples and measures loudness."""

    def __init__(self, frame: Any) -> None:
        from pipeline.acquisition.loudness import LoudnessMeter

        self.rate_hz, self.channels = frame.sample_rate, frame.layout.nb_channels
        self.meter = LoudnessMeter(self.rate_hz, self.channels)
        self.end_s = 0.0
        self._waiting: list[np.ndarray] = []

    def add(self, frame: Any, time_s: float) -> None:
        from pipeline.waveform import to_float

        end_s = time_s + frame.samples / frame.sample_rate
        if end_s <= 0:
            return
        self.end_s = max(self.end_s, end_s)
        if frame.layout.nb_channels != self.channels:
            return
        self._waiting.append(to_float(frame))
        if len(self._waiting) >= 64:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self.meter.add(np.concatenate(self._waiting, axis=1))
            self._waiting.clear()


def _facts(video: Any, audio: Any, pictures: _Pictures, sounds: _Sounds | None) -> Facts:
    found: dict[str, Any] = {}
    video_s = pictures.last_s + pictures.step_s if pictures.count else 0.0
    if pictures.count:
        span_s = pictures.last_s - pictures.first_s
        found |= {
            "frames": pictures.count,
            "fps": round((pictures.count - 1) / span_s, 3) if span_s > 0 else 0.0,
            "width": video.width,
            "height": video.height,
            "video_codec": video.codec_context.name,
            "black_share": round(pictures.black / pictures.looked, 4),
            "still_share": round(pictures.still / (pictures.looked - 1), 4) if pictures.looked > 1 else None,
        }
    if sounds is not None:
        sounds.flush()
        found |= {
            "audio_codec": audio.codec_context.name,
            "audio_rate_hz": sounds.rate_hz,
            "audio_channels": sounds.channels,
            "loudness_lufs": round(sounds.meter.loudness_lufs, 2),
            "peak_db": round(sounds.meter.peak_db, 2),
        }
    audio_s = sounds.end_s if sounds is not None else 0.0
    return Facts(round(max(video_s, audio_s), 4), round(video_s, 4), round(audio_s, 4), **found)


def _open(path: Path) -> Any:
    import av

    from pipeline.access import check_access

    if not path.is_file() or path.stat().st_size == 0:
        raise BadMedia("not-media", f"{path.name}: the file is empty or missing")
    try:
        return av.open(f"file:{path}", options=_SAFE_OPEN, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, av.FFmpegError):
            check_access(error, path)
        with open(path, "rb") as file:
            head = file.read(400)
        started_well = head[4:8] == b"ftyp"
        words = " It is a web page." if head.lstrip()[:5].lower() in (b"<!doc", b"<html") else ""
        raise BadMedia(
            "truncated" if started_well else "not-media", f"{path.name}: {getattr(error, 'strerror', error)}.{words}"
        ) from error


def _ending(format_name: str, has_video: bool) -> str:
    if "mp4" in format_name:
        return ".mp4" if has_video else ".m4a"
    endings = {"matroska": ".mkv", "avi": ".avi", "flv": ".flv", "mpegts": ".ts", "mpeg": ".mpg", "asf": ".wmv"}
    endings |= {"wav": ".wav", "mp3": ".mp3", "flac": ".flac", "aac": ".aac", "ogg": ".mkv" if has_video else ".ogg"}
    return next((ending for name, ending in endings.items() if name in format_name), ".mp4")
