"""A clip's file: where it lies, how it opens, and what it says of itself without being decoded."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.format import Flags

from pipeline.access import check_access
from pipeline.duration import promised_s
from pipeline.manifest import Clip, check_relative

EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp")
AUDIO_EXTENSIONS = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")

# Formats of PyAV whose headers say all about the pictures, so that none has to be decoded to learn it.
_TOLD_BY_HEADER = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

# Frames that start within half a 60 Hz frame of a bound belong to it.
_SLACK_S = 1 / 120

#: What may be missing of the length that a header promises, which is rounded, or of what its packets hold.
MISSING_S = 1.0


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


@dataclass(frozen=True)
class Packets:
    """What the packets of a file say, which costs no decoding.

    Args:
        stamps: (N,) int64, ascending presentation time stamps of the video stream, in its time base.
        end_s: end of the last one of all streams, subtitles included, from the clip's start; None without one.
        whole: reading them met no error.
    """

    stamps: np.ndarray
    end_s: float | None
    whole: bool


class MediaFile:
    """An open file and the stretch of it that is the clip.

    Args:
        path: of a media file.
        start_s: where the clip starts, from the file's first time stamp.
        length_s: of the clip; None reads to the end of the file.
    Raises:
        MediaError: `absent`, `not-media`, `truncated`.
    """

    def __init__(self, path: Path, start_s: float, length_s: float | None) -> None:
        self.path, self.start_s, self.length_s = path, start_s, length_s
        self.container = self.open()
        self.origin_s = (self.container.start_time or 0) / av.time_base
        #: Length of the whole file as FFmpeg states it, which may be a guess; 0 where it says nothing.
        self.stated_s = (self.container.duration or 0) / av.time_base
        #: Length of the whole file by its header; 0 where that says nothing.
        self.promised_s = promised_s(self.container, path)
        #: Time stamps may begin anew within a file of this format.
        self.restarts = bool(self.container.format.flags & Flags.ts_discont.value)
        pictures, sounds = self.container.streams.video, self.container.streams.audio
        if pictures and pictures[0].disposition & av.stream.Disposition.attached_pic:
            pictures = ()  # cover art of an audio file
        self.video, self.sound = decodable(pictures), decodable(sounds)
        #: Of `video` and `audio`, what is there in a coding that this FFmpeg has no decoder for.
        self.undecodable = tuple(
            name
            for name, streams, found in (("video", pictures, self.video), ("audio", sounds, self.sound))
            if streams and found is None
        )
        if self.video is None and self.sound is None:
            if self.undecodable:
                what = " and ".join(self.undecodable)
                raise MediaError("decode-error", f"{self.path.name}: this FFmpeg has no decoder for its {what} stream")
            raise MediaError("not-media", f"{self.path.name}: neither a video nor an audio stream")

    def open(self, before_s: float | None = None, pictures: bool = True) -> av.container.InputContainer:
        """The file anew, from its beginning; or from a key frame this much before the clip.

        Opening decodes some frames of every stream to learn about it: 12 ms at 640x360, 80 ms at 1920x1080.  Where the
        header says it too, only sound is looked at (1 to 2 ms), whose true rate may be twice the header's (HE-AAC).

        Args:
            pictures: they will be decoded.
        Raises:
            MediaError: `absent`, `not-media`, `truncated`.
        """
        try:
            if self.path.stat().st_size == 0:
                raise MediaError("not-media", f"{self.path.name}: the file is empty")
            container = av.open(str(self.path), options={"codec_whitelist": _sound_decoders()})
            if pictures and not _told(container):
                container.close()
                container = av.open(str(self.path))
        except FileNotFoundError as error:
            raise MediaError("absent", f"{self.path.name}: no such file") from error
        except FFmpegError as error:
            check_access(error, self.path)
            outcome = "truncated" if _looks_cut(self.path) else "not-media"
            raise MediaError(outcome, f"{self.path.name}: {error.strerror}") from error
        if before_s is not None and self.start_s > 1.0:
            container.seek(int((self.origin_s + self.start_s - before_s) * av.time_base), backward=True)
        return container

    def close(self) -> None:
        self.container.close()

    def demux(self, container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
        """Packets up to where the data end, or make no sense any more."""
        try:
            yield from container.demux(*streams)
        except FFmpegError as error:
            check_access(error, self.path)

    def decode(self, packet: av.Packet) -> list[av.VideoFrame] | list[av.AudioFrame] | None:
        """Frames that come with a packet; None if it does not decode, which costs no other packet, as in ffmpeg."""
        try:
            return packet.decode()
        except FFmpegError as error:
            check_access(error, self.path)
            return None

    def since_start_s(self, time_s: float) -> float:
        """A time of the file, from the clip's start."""
        return time_s - self.origin_s - self.start_s

    def before(self, times_s: np.ndarray) -> np.ndarray:
        """Which times, in seconds from the clip's start, are too early for it; a clip from the start has none."""
        return (times_s < -_SLACK_S) & (self.start_s > 0)

    def beyond(self, times_s: np.ndarray) -> np.ndarray:
        """Which times, in seconds from the clip's start, are after its end."""
        return times_s >= (np.inf if self.length_s is None else self.length_s - _SLACK_S)

    @functools.cached_property
    def packets(self) -> Packets:
        """Read from the file's first to its last packet."""
        stamps: list[int] = []
        ends: dict[av.stream.Stream, int] = {}
        try:
            # Nothing else reads packets from this container, so it stands at its beginning.
            for packet in self.container.demux():
                if packet.pts is None or packet.is_discard:
                    continue
                stream, end = packet.stream, packet.pts + (packet.duration or 0)
                if end > ends.get(stream, 0):
                    ends[stream] = end
                if stream is self.video:
                    stamps.append(packet.pts)
        except FFmpegError as error:
            check_access(error, self.path)
            return Packets(np.zeros(0, dtype=np.int64), None, whole=False)
        end_s = max((self.since_start_s(float(end * stream.time_base)) for stream, end in ends.items()), default=None)
        return Packets(np.sort(np.array(stamps, dtype=np.int64)), end_s, whole=True)


def decodable(streams: Iterable[av.stream.Stream]) -> av.stream.Stream | None:
    """The first stream that this FFmpeg has a decoder for; None without one."""
    return next((stream for stream in streams if stream.codec_context is not None), None)


@functools.cache
def _sound_decoders() -> str:
    """Every decoder of sound that this FFmpeg has, as its options list them."""
    decoders = []
    for name in sorted(av.codecs_available):
        try:
            if av.Codec(name, "r").type == "audio":
                decoders.append(name)
        except ValueError:
            continue  # it only encodes
    return ",".join(decoders)


def _told(container: av.container.InputContainer) -> bool:
    """Whether the header told what its pictures are."""
    if not container.streams.video:
        return True
    decodable = [stream for stream in container.streams.video if stream.codec_context is not None]
    known = all(stream.width and stream.height for stream in decodable)
    return known and container.format.name in _TOLD_BY_HEADER


def _looks_cut(path: Path) -> bool:
    """An MP4 that starts well but has no `moov` atom: the download stopped before the end."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp"
