"""Odd and ordinary media files, written with PyAV, for everyone's tests.

Every frame carries its own number as 16 black or white blocks along the top, so that a test can read back which frame
it was given: `read_number(image)`.  The sound is a sine per channel unless samples are given.  All is deterministic.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

BITS = 16
AUDIO_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def number_image(number: int, width: int, height: int) -> np.ndarray:
    """A grey frame (height, width, 3) uint8 with `number` in blocks along its top quarter, lowest bit on the left."""
    image = np.full((height, width, 3), 90 + number * 7 % 70, dtype=np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        image[: height // 4, edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 16
    return image


def read_number(image: np.ndarray) -> int:
    """The number in an image (H, W, 3) or (H, W) that `number_image` drew, also after scaling or compression."""
    height, width = image.shape[:2]
    grey = image.reshape(height, width, -1).mean(axis=2)
    edges = np.linspace(0, width, BITS + 1)
    middles = ((edges[:-1] + edges[1:]) / 2).astype(int)
    reach = max(width // BITS // 5, 1)
    rows = slice(max(height // 16, 1), max(height // 6, 2))
    bits = [grey[rows, middle - reach : middle + reach + 1].mean() > 125 for middle in middles]
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)


def tone(duration_s: float, rate_hz: int, channels: int = 1, hz: float = 440.0) -> np.ndarray:
    """Sines (channels, N) float32 of amplitude 0.5; channel c sounds at (c + 1) * hz."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return np.stack([0.5 * np.sin(2 * np.pi * hz * (c + 1) * times) for c in range(channels)]).astype(np.float32)


def write_media(
    path: Path,
    *,
    images: Iterable[np.ndarray] | None = None,
    times_s: Sequence[float] | None = None,
    fps: float | Fraction = 25,
    samples: np.ndarray | None = None,
    rate_hz: int = 44_100,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    keyframe_every: int = 12,
    crf: int = 18,
    moov_first: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames and sound into one file; the suffix of `path` chooses the container.

    Args:
        images: (H, W, 3) uint8 RGB each, odd sizes included (they are then stored as 4:4:4); None for no video.
        times_s: presentation time of every image, for a variable frame rate; default: constant `fps`.
        samples: (channels, N) float32 in [-1, 1]; None for no audio.
        keyframe_every: frames between key frames; b-frames are on, so seeking is not trivial.
        options: of the container.
    """
    import av

    options = (options or {}) | ({"movflags": "+faststart"} if moov_first else {})
    with av.open(str(path), "w", options=options) as container:
        video = sound = None
        if images is not None:
            images = iter(images)
            first = next(images)
            height, width = first.shape[:2]
            video = container.add_stream(video_codec, rate=Fraction(fps).limit_denominator(100_000))
            video.width, video.height = width, height
            video.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            video.thread_count = 1
            video.gop_size = keyframe_every
            if video_codec == "libx264":
                video.options = {"preset": "ultrafast", "crf": str(crf), "bf": "2"}
            if times_s is not None:
                video.codec_context.time_base = Fraction(1, 90_000)
        if samples is not None:
            sound = container.add_stream(audio_codec, rate=rate_hz, layout=AUDIO_LAYOUTS[len(samples)])
        if video is not None:
            for index, image in enumerate(itertools.chain([first], images)):
                _put_image(container, video, image, index, times_s)
            container.mux(video.encode())
        if sound is not None:
            _put_samples(container, sound, samples, rate_hz)
    return path


def numbered(
    path: Path,
    *,
    duration_s: float = 2.0,
    fps: float | Fraction = 25,
    width: int = 320,
    height: int = 240,
    rate_hz: int = 44_100,
    channels: int = 1,
    video: bool = True,
    audio: bool = True,
    **more: object,
) -> Path:
    """A clip whose frame k shows the number k, with tones; `video=False` or `audio=False` leaves a stream out."""
    count = max(round(duration_s * float(fps)), 1)
    images = (number_image(index, width, height) for index in range(count)) if video else None
    samples = tone(duration_s, rate_hz, channels) if audio else None
    return write_media(path, images=images, fps=fps, samples=samples, rate_hz=rate_hz, **more)


def live_recording(path: Path, **more: object) -> Path:
    """WebM as a browser records it: nothing in it states its length."""
    codecs = {"video_codec": "libvpx", "audio_codec": "libopus", "rate_hz": 48_000}
    return numbered(path, options={"live": "1"}, **codecs, **more)


def zero_byte(path: Path) -> Path:
    """An empty file with the name of a video."""
    path.write_bytes(b"")
    return path


def not_media(path: Path) -> Path:
    """Text with the name of a video."""
    path.write_text("<html><body>404: this is not the video you are looking for</body></html>\n" * 40)
    return path


def truncated(path: Path, *, keep: float = 0.5, moov_first: bool = False, **more: object) -> Path:
    """An mp4 cut off after the share `keep` of its bytes.

    With the index at its end (`moov_first=False`) no player can open it; with the index first it opens, claims its full
    length, and ends early.
    """
    numbered(path, moov_first=moov_first, **more)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def damaged(path: Path, numbers: Iterable[int], *, video: bool = False, **more: object) -> Path:
    """A clip in which these packets of the sound, or of the pictures, hold nothing that decodes."""
    import av

    numbered(path, **more)
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if video else container.streams.audio[0]
        places = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in (places[number] for number in numbers):
        data[start : start + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    return path


def second_sound(path: Path, *, duration_s: float, second_s: float) -> Path:
    """A file with two sound tracks, of which the second has another length."""
    import av

    first = numbered(path.with_name(f"first-{path.stem}.mp4"), duration_s=duration_s)
    second = no_video(path.with_name(f"second-{path.stem}.mp4"), duration_s=second_s)
    with av.open(str(path), "w") as write, av.open(str(first)) as one, av.open(str(second)) as other:
        sources = [*one.streams, *other.streams]
        streams = [write.add_stream_from_template(stream) for stream in sources]
        for source, stream in zip(sources, streams, strict=True):
            source.container.seek(0)
            for packet in source.container.demux(source):
                if packet.dts is not None:
                    packet.stream = stream
                    write.mux(packet)
    return path


def unknown_coding(path: Path, *, video: bool = True, **more: object) -> Path:
    """An mp4 whose header says that its pictures, or its sound, are coded in a way that nobody knows."""
    data = bytearray(numbered(path, **more).read_bytes())
    kind, coding = (b"vide", b"avc1") if video else (b"soun", b"mp4a")
    at = data.index(coding, data.index(b"stsd", data.index(kind)))
    data[at : at + 4] = b"zzzz"
    if not video:  # MPEG-4 states it once more
        data[data.index(b"\x04\x80\x80\x80", data.index(b"esds", at)) + 5] = 0xFE
    path.write_bytes(bytes(data))
    return path


def rewritten(path: Path, source: Path, change: Callable[[int, av.Packet], bool], **options: str) -> Path:
    """The packets of another file that `change`, given the number of each in its stream, says to keep."""
    import av

    with av.open(str(source)) as read, av.open(str(path), "w", options=options) as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        counts = dict.fromkeys(streams, 0)
        for packet in read.demux():
            if packet.dts is not None:
                index = packet.stream_index
                if change(counts[index], packet):
                    packet.stream = streams[index]
                    write.mux(packet)
                counts[index] += 1
    return path


def no_audio(path: Path, **more: object) -> Path:
    """Pictures only."""
    return numbered(path, audio=False, **more)


def no_video(path: Path, **more: object) -> Path:
    """Sound only, in whatever container the suffix says."""
    return numbered(path, video=False, **more)


def short(path: Path, *, duration_s: float = 0.3) -> Path:
    """Shorter than any segment."""
    return numbered(path, duration_s=duration_s)


def one_frame(path: Path, *, audio_s: float = 2.0) -> Path:
    """A single picture under two seconds of sound."""
    return write_media(path, images=[number_image(0, 320, 240)], samples=tone(audio_s, 44_100))


def variable_rate(path: Path, *, audio: bool = True) -> tuple[Path, np.ndarray]:
    """30 fps for a second, 10 fps for a second, 24 fps for a second; returned with the times (n,) in seconds."""
    times = np.concatenate([np.arange(30) / 30, 1 + np.arange(10) / 10, 2 + np.arange(24) / 24])
    images = (number_image(index, 320, 240) for index in range(len(times)))
    samples = tone(3.0, 44_100) if audio else None
    return write_media(path, images=images, times_s=times.tolist(), samples=samples), times


def rotated(path: Path, *, quarter_turns: int = 1, **more: object) -> Path:
    """An mp4 stored lying down: its track header asks players to turn it clockwise by `quarter_turns` * 90 degrees.

    The number blocks are along the top of the *stored* picture.
    """
    width, height = int(more.get("width", 320)), int(more.get("height", 240))
    numbered(path, **more)
    one = 1 << 16
    a, b, shift_x, shift_y = {
        0: (one, 0, 0, 0),
        1: (0, one, height * one, 0),
        2: (-one, 0, width * one, height * one),
        3: (0, -one, 0, width * one),
    }[quarter_turns % 4]
    matrix = struct.pack(">9i", a, b, 0, -b, a, 0, shift_x, shift_y, 1 << 30)
    data = bytearray(path.read_bytes())
    at = (
        data.index(b"tkhd") + 4 + 40
    )  # version 0: flags, times, id, duration, reserved, layer, group, volume precede it
    data[at : at + 36] = matrix
    path.write_bytes(bytes(data))
    return path


def odd_size(path: Path, *, width: int = 321, height: int = 241, **more: object) -> Path:
    """Width and height that 4:2:0 cannot hold; stored as 4:4:4."""
    return numbered(path, width=width, height=height, **more)


def six_channels(path: Path, **more: object) -> Path:
    """5.1 sound."""
    return numbered(path, channels=6, rate_hz=48_000, **more)


def eight_khz(path: Path, **more: object) -> Path:
    """Telephone sound: 8 kHz mono."""
    return numbered(path, rate_hz=8_000, **more)


def _put_image(container, stream, image, index, times_s) -> None:
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if times_s is None:
        frame.pts, frame.time_base = index, 1 / stream.codec_context.framerate
    else:
        frame.pts, frame.time_base = round(times_s[index] * 90_000), Fraction(1, 90_000)
    container.mux(stream.encode(frame))


def _put_samples(container, stream, samples, rate_hz) -> None:
    import av

    planar = stream.codec_context.format.is_planar if stream.codec_context.format else True
    for start in range(0, samples.shape[1], 1024):
        block = np.ascontiguousarray(samples[:, start : start + 1024])
        if stream.codec_context.name == "pcm_s16le":
            block = (np.clip(block, -1, 1) * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=AUDIO_LAYOUTS[len(samples)])
        else:
            planar = planar and len(samples) < 8  # PyAV cannot write eight planes
            block = block if planar else block.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                block, format="fltp" if planar else "flt", layout=AUDIO_LAYOUTS[len(samples)]
            )
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
