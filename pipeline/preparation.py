"""From one clip to model-ready rows of every encoder that asked: opened once, decoded once.

This is what a worker process does.  It yields parts, so that a long clip never has to be in memory as a whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extractors.base import Encoder, NoAudio, NoVideo
from pipeline.access import AccessError, is_access_error
from pipeline.manifest import Clip
from pipeline.media import Media
from pipeline.mediafile import FramesMissing, MediaError, find

# Decoded frames held at once.  160 frames of 1080p are 1 GB; ten seconds of 320x240 at 16 a second are 37 MB.
_FRAME_BYTES = 256 << 20
# Rows prepared at once: those of so many seconds, which bounds what is held where nothing is decoded by frame.
_BLOCK_S = 60.0
# Media that ends this little before the grid counts as whole: AAC and frame durations never add up exactly.
TAIL_TOLERANCE_S = 0.1


@dataclass(frozen=True)
class Task:
    """Work for one clip.

    Args:
        row: of the manifest.
        keys: features wanted; positions in the worker's table of encoders.
        max_rows: planned T per key; a file longer than its manifest says is cut there.
    """

    row: int
    clip: Clip
    keys: tuple[str, ...]
    max_rows: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one clip for all keys that are made from them; `last` marks the clip's end.

    Args:
        offset: first row of the part in the clip.
        batch: (d, ...) as `Encoder.prepare` or `Encoder.collect` returns, without rows that repeat the one before.
        places: (t,) int64, the item of `batch` that each row is.
        segments: (t, 2) float64 s.
    """

    row: int
    keys: tuple[str, ...]
    offset: int
    batch: torch.Tensor
    places: np.ndarray
    segments: np.ndarray
    last: bool

    def split(self, items: int) -> Iterator[Part]:
        """The same rows in parts of at most `items` items of the batch."""
        for start in range(0, len(self.batch), items):
            inside = np.flatnonzero((self.places >= start) & (self.places < start + items))
            yield Part(
                self.row,
                self.keys,
                self.offset + int(inside[0]),
                self.batch[start : start + items],
                self.places[inside] - start,
                self.segments[inside],
                self.last and start + items >= len(self.batch),
            )


@dataclass(frozen=True)
class Failure:
    """A clip has no rows under a key, and why; rows sent before are void."""

    row: int
    key: str
    outcome: str
    message: str


def prepare_clip(
    task: Task, encoders: dict[str, Encoder], folder: Path, tail: str = "pad", prepared: bool = True
) -> Iterator[Part | Failure]:
    """Parts or a failure for every key of the task, in any order.

    Args:
        encoders: by key, without weights.
        folder: of media files.
        tail: `pad` fills what the media lacks with silence and the last frame, `drop` fails the clip.
        prepared: give rows as `Encoder.prepare` does; if not, as `Encoder.collect` does.
    Raises:
        AccessError: this machine, and not the clip, is at fault.
    """
    try:
        path, whole = find(task.clip, folder)
        start_s = task.clip.start_s or 0.0 if whole else 0.0
        with Media(path, start_s, task.clip.duration_s if whole else None) as media:
            try:
                yield from _rows(task, encoders, media, tail, prepared)
            except FramesMissing:
                media.recount()
                yield from _rows(task, encoders, media, tail, prepared, recounted=True)
    except Exception as error:
        yield from failures(task, task.keys, error)


def failures(task: Task, keys: Iterable[str], error: Exception) -> list[Failure]:
    """An error, whatever a decoder or front end raised, as the reason why a clip has no rows under some keys.

    Raises:
        AccessError: the error is none of the clip's.
    """
    name = f"clip {task.clip.id}"
    if is_access_error(error):
        full = error.errno == errno.ENOSPC  # reading a clip fills no other folder
        mend = "free the folder of temporary files, or name another in TMPDIR," if full else "mend that"
        words = f"{name} cannot be read: {os.strerror(error.errno)}; {mend} and run the same command again"
        raise AccessError(error.errno, words, error.filename) from error
    if isinstance(error, MediaError):
        outcome, message = error.outcome, str(error)
    elif isinstance(error, NoAudio | NoVideo):
        outcome, message = "no-audio" if isinstance(error, NoAudio) else "no-video", str(error)
    elif isinstance(error, MemoryError):
        outcome, message = "crashed", f"{name}: out of memory while decoding"
    else:
        outcome, message = "decode-error", f"{name}: {type(error).__name__}: {error}"
    return [Failure(task.row, key, outcome, message) for key in keys]


def _rows(
    task: Task, encoders: dict[str, Encoder], media: Media, tail: str, prepared: bool, recounted: bool = False
) -> Iterator[Part | Failure]:
    def failed(keys: tuple[str, ...], error: Exception) -> list[Failure]:
        """What fails for one encoder costs its keys only; frames that are missing for the first time are counted."""
        if isinstance(error, FramesMissing) and not recounted:
            raise error
        for key in keys:
            plans.pop(key, None)
        return failures(task, keys, error)

    media.check_whole()
    duration_s = task.clip.duration_s if task.clip.duration_s is not None else media.duration_s
    plans: dict[str, np.ndarray] = {}
    for key, max_rows in zip(task.keys, task.max_rows, strict=True):
        spec = encoders[key].spec
        segments = spec.grid.segments(duration_s)
        if task.clip.duration_s is None and len(segments) > max_rows:
            yield Failure(
                task.row,
                key,
                "wrong-length",
                f"{media.path.name}: lasts {duration_s:.2f} s, which the manifest does not know: it gives "
                f"{len(segments)} rows, and the store is planned for {max_rows}. Prepare a new manifest.",
            )
            continue
        segments = segments[:max_rows]
        try:
            failure = _refusal(task, key, spec.modality, media, segments, tail)
        except Exception as error:
            yield from failed((key,), error)
            continue
        if failure:
            yield failure
        else:
            plans[key] = segments
    for start_s, stop_s in _blocks(plans, encoders, media):
        block = {key: (segments[:, 0] >= start_s) & (segments[:, 0] < stop_s) for key, segments in plans.items()}
        native = []
        for key, inside in block.items():
            if inside.any() and _uses_native(encoders[key]):
                try:
                    native.append(encoders[key].frame_indices(media, plans[key][inside]).ravel())
                except Exception as error:
                    yield from failed((key,), error)
        if native:
            media.want(np.concatenate(native))
        for keys in _shared(plans, encoders, prepared):
            segments = plans[keys[0]]
            rows = np.flatnonzero(block[keys[0]])
            if not len(rows):
                continue
            make = encoders[keys[0]].prepare if prepared else encoders[keys[0]].collect
            try:
                batch, places = _distinct(make(media, segments[rows]))
            except Exception as error:
                yield from failed(keys, error)
                continue
            yield Part(task.row, keys, int(rows[0]), batch, places, segments[rows], int(rows[-1]) == len(segments) - 1)


def _shared(plans: dict[str, np.ndarray], encoders: dict[str, Encoder], prepared: bool) -> list[tuple[str, ...]]:
    """Keys whose rows are made alike, together: sent, resized and transformed once."""
    groups: dict[tuple, list[str]] = {}
    for key in plans:
        made_by = encoders[key].front_end if prepared else encoders[key].source
        groups.setdefault((made_by, len(plans[key])), []).append(key)
    return [tuple(keys) for keys in groups.values()]


def _distinct(batch: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Items without those that equal the one before bit by bit, and which item each row is.

    A still picture or digital silence makes many such rows; they need the network once.
    """
    new = [0, *(row for row in range(1, len(batch)) if not torch.equal(batch[row], batch[row - 1]))]
    if len(new) == len(batch):
        return batch, np.arange(len(batch))
    return batch[new], np.searchsorted(new, np.arange(len(batch)), side="right") - 1


def _uses_native(encoder: Encoder) -> bool:
    return encoder.spec.sampler is not None and encoder.spec.sampler.source == "native"


def _refusal(task: Task, key: str, modality: str, media: Media, segments: np.ndarray, tail: str) -> Failure | None:
    """Why this clip cannot have rows of this modality, or None."""
    name = media.path.name
    what = "video" if modality == "visual" else "audio"
    if what in media.undecodable:
        return Failure(task.row, key, "decode-error", f"{name}: this FFmpeg has no decoder for its {what} stream")
    if modality == "visual":
        if not media.has_video:
            return Failure(task.row, key, "no-video", f"{name}: no video stream")
        if len(media.timeline()) == 0:
            return Failure(task.row, key, "decode-error", f"{name}: no frame of the video stream decodes")
        end_s = media.video_end_s
    else:
        if not media.has_audio:
            return Failure(task.row, key, "no-audio", f"{name}: no audio stream")
        end_s = media.audio_end_s
        if end_s == 0.0:
            return Failure(task.row, key, "no-audio", f"{name}: no sample of the audio stream decodes")
    needed_s = float(segments[-1, 1])
    if tail == "drop" and end_s < needed_s - TAIL_TOLERANCE_S:
        return Failure(
            task.row,
            key,
            "too-short",
            f"clip {task.clip.id}: {what} ends at {end_s:.2f} s, the grid needs {needed_s:.2f} s. "
            "Pass --tail pad to pad with silence and the last frame.",
        )
    return None


def _blocks(plans: dict[str, np.ndarray], encoders: dict[str, Encoder], media: Media) -> Iterator[tuple[float, float]]:
    """Stretches of time whose wanted frames fit into memory together."""
    end_s = max((float(segments[-1, 1]) for segments in plans.values()), default=0.0)
    if end_s == 0.0:
        return
    height, width = media.frame_size
    per_second = sum(
        encoders[key].spec.sampler.per_row / encoders[key].spec.grid.hop_s
        for key in plans
        if _uses_native(encoders[key])
    )
    frame_rate = len(media.timeline()) / max(media.video_end_s, 1e-9) if media.has_video else 0.0
    bytes_per_s = min(per_second, frame_rate) * height * width * 3
    block_s = max(min(np.floor(_FRAME_BYTES / max(bytes_per_s, 1.0)), _BLOCK_S), 1.0)
    start_s = 0.0
    while start_s < end_s:
        yield start_s, start_s + block_s
        start_s += block_s
