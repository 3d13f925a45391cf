"""The frames of a clip's video stream by their number: decoded in order, once, converted only where wanted."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.mediafile import MISSING_S, FramesMissing, MediaError, MediaFile


class Frames:
    """Decoded frames; `want` says which are asked for next, so that memory follows a block of rows.

    Args:
        file: with a video stream.
    """

    def __init__(self, file: MediaFile) -> None:
        self.file = file
        self._times_s: np.ndarray | None = None
        self._lost_s = 0.0
        # Where a time stamp is in the timeline; None: frames have to be counted.
        self._places: dict[int, int] | None = None
        # Whether the time stamp of a packet is that of its frame, so that frames can be left out undecoded.
        self._skips = False
        self._decoder: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._converter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._position = 0
        self._cache: dict[int, np.ndarray] = {}
        self._wanted: set[int] = set()
        self._keep: set[int] = set()
        self._horizon = 0

    def close(self) -> None:
        self._decoder = None
        self._cache.clear()

    @property
    def end_s(self) -> float:
        """End of the last frame; 0 where none decodes."""
        times_s = self.timeline()
        if len(times_s) == 0:
            return 0.0
        rate_hz = float(self.file.video.average_rate or self.file.video.guessed_rate or 25)
        return float(times_s[-1]) + (float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0 / rate_hz)

    def timeline(self) -> np.ndarray:
        """(N,) float64 seconds: when each frame of the clip is shown, from the packets; `read` checks it."""
        if self._times_s is None:
            self._times_s = self._index() if self.file.packets.whole else self._count()
        return self._times_s

    def _index(self) -> np.ndarray:
        stamps, base = self.file.packets.stamps, self.file.video.time_base
        times_s = self.file.since_start_s(stamps * base.numerator / base.denominator)
        inside = ~self.file.before(times_s) & ~self.file.beyond(times_s)
        places = {stamp: place for place, stamp in enumerate(stamps[inside].tolist())}
        if len(places) == inside.sum():
            self._places, self._skips = places, True
        return times_s[inside]

    def _count(self) -> np.ndarray:
        """Presentation times of the frames that really decode."""
        self._places, self._skips = None, False
        found = sorted((frame.time, frame.pts) for _, frame in self._decode())
        # Damaged streams give frames out of order.
        places = {stamp: place for place, (_, stamp) in enumerate(found)}
        self._places = places if len(places) == len(found) else None
        return self.file.since_start_s(np.array([time_s for time_s, _ in found], dtype=np.float64))

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their numbers from a fresh container, in presentation order; ends quietly where the data does,
        and leaves out packets that do not decode.

        Frames that nobody wants and that no other frame refers to are not decoded, where time stamps tell which they
        are; a number is -1 where a frame has a time stamp that no packet had.
        """
        number = -1
        with self.file.open(before_s=0.5) as container:
            stream = container.streams[self.file.video.index]
            stream.thread_type = "NONE"
            for packet in self.file.demux(container, stream):
                if self._skips:
                    place = self._places.get(packet.pts, -1)
                    # What lies beyond the last frame that is wanted now may be wanted for the next rows.
                    idle = place not in self._keep and 0 <= place < self._horizon
                    stream.codec_context.skip_frame = "NONREF" if idle else "DEFAULT"
                for frame in self.file.decode(packet) or ():
                    if frame.time is None or self.file.before(time_s := self.file.since_start_s(frame.time)):
                        continue
                    if self.file.beyond(time_s):
                        return
                    number = number + 1 if self._places is None else self._places.get(frame.pts, -1)
                    yield number, frame

    def want(self, numbers: np.ndarray) -> None:
        """Frames that `read` will be asked for next; others are dropped or skipped."""
        self._wanted = set(np.unique(numbers).tolist())
        self._cache = {number: frame for number, frame in self._cache.items() if number in self._wanted}

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB, repeats allowed.

        Raises:
            FramesMissing: fewer frames decode than the packets promise.
            MediaError: `decode-error`, so many fewer that what is there does not stand for the clip.
        """
        if self._lost_s > MISSING_S:
            raise MediaError(
                "decode-error",
                f"{self.file.path.name}: {self._lost_s:.2f} s of its pictures do not decode; fetch it again",
            )
        needed = set(numbers.tolist())
        if not needed <= self._cache.keys():
            self._advance(needed)
        return np.stack([self._cache[number] for number in numbers.tolist()])

    def _advance(self, needed: set[int]) -> None:
        """Decode forward until every needed frame is in the cache, keeping the wanted ones on the way."""
        self.timeline()  # tells which time stamp is which frame
        missing = needed - self._cache.keys()
        self._keep = needed | self._wanted
        self._horizon = max(self._keep)
        if self._decoder is None or min(missing) < self._position:
            self._decoder, self._position = self._decode(), 0
        while missing:
            number, frame = next(self._decoder, (-1, None))
            if frame is not None and number < 0:
                # Time stamps of this file do not tell its frames: count them, all of them, also those told before.
                self._places, self._skips, self._decoder, self._position = None, False, self._decode(), 0
                self._cache.clear()
                missing = set(needed)
                continue
            if frame is None:
                raise FramesMissing(
                    "decode-error",
                    f"{self.file.path.name}: frame {max(missing)} of {len(self.timeline())} does not decode; "
                    f"{self._position} frames do",
                )
            self._size = self._size or (frame.width, frame.height)
            if number in self._keep and number not in self._cache:
                self._cache[number] = self._rgb(frame)
            missing.discard(number)
            self._position = max(self._position, number + 1)

    def recount(self) -> None:
        """Index the frames by decoding all of them, after `read` ran into the end too early."""
        promised_s = self.timeline()
        self._times_s, self._decoder, self._position = self._count(), None, 0
        self._lost_s = _lost_s(promised_s, self._times_s)
        self._cache.clear()

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB, turned as the file's display matrix asks, which players and OpenCV do too.

        Frames of another size than the first are scaled to it, bicubically as ffmpeg does.
        """
        width, height = self._size
        scaled = {} if (frame.width, frame.height) == self._size else {"interpolation": "BICUBIC"}
        # One converter for all frames: making one takes longer than converting a small frame.
        made = self._converter.reformat(frame, width, height, format="rgb24", threads=1, **scaled)
        picture = made.to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _lost_s(promised_s: np.ndarray, decoded_s: np.ndarray) -> float:
    """Seconds in which frames are promised, by their (N,) times, and none decodes."""
    if not len(promised_s) or not len(decoded_s):
        return float(np.ptp(promised_s)) if len(promised_s) else 0.0
    before = np.searchsorted(decoded_s, promised_s + 1e-4, side="right") - 1
    since_s = np.where(before < 0, np.inf, promised_s - decoded_s[before])
    # Interlaced frames may come as two packets and decode as one.
    step_s = np.median(np.diff(decoded_s)) if len(decoded_s) > 1 else 0.0
    lost = since_s > max(0.75 * step_s, 1e-3)
    return float(np.diff(promised_s, append=promised_s[-1])[lost].sum())
