"""Which clips exist: `Event`, `Clip` and `Manifest`, the first thing every stage reads.

A manifest is one Parquet file (`pipeline.manifest_file`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

MODALITIES = ("audio", "visual", "both")
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


def check_id(value: str, what: str = "clip id") -> str:
    """The id itself, if it is safe as a file name: letters, digits, `_`, `-`, `.`; not starting with a dot.

    Raises:
        ValueError: anything else, such as a path separator.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value) or ".." in value:
        raise ValueError(f"{what} {value!r} is not safe as a file name: use letters, digits, _ - and single dots")
    return value


def check_relative(value: str) -> str:
    """A POSIX path that stays inside the folder it is relative to.

    Raises:
        ValueError: absolute, empty, or with a `..` part.
    """
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"media path {value!r} must be relative and stay inside the media folder")
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """A labelled stretch of a clip, half open, in seconds from the start of the clip.

    Args:
        label: a name of the manifest's vocabulary.
        modality: where it can be perceived: `audio`, `visual` or `both`.
        start_s, end_s: start_s == end_s is kept (AVE row 26) and marks nothing.
    """

    label: str
    modality: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample of a dataset.  It leaves out where the media file is, unless the name cannot be derived.

    Two annotation rows of one video are two clips.

    Args:
        id: permanent, unique in the dataset, safe as a file name.
        source_id: of the video the clip was cut from (a YouTube id); media files may be named by it.
        start_s: start of the clip inside the source video, None where nobody published it (AVE).
        duration_s: length of the clip; None where it is not known before decoding.
        split: `train`, `val`, `test`, ... or `` for none.
        labels: clip-level (weak) labels.
        events: dense labels, possibly empty.
        media: path relative to the media folder, only where `<id>` and `<source_id>` do not name the file.
    """

    id: str
    source_id: str
    start_s: float | None = None
    duration_s: float | None = None
    split: str = ""
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    media: str | None = None

    @property
    def end_s(self) -> float | None:
        """End inside the source video, seconds."""
        if self.start_s is None or self.duration_s is None:
            return None
        return self.start_s + self.duration_s

    def to_dict(self) -> dict[str, Any]:
        # Written out because dataclasses.asdict copies every value deeply: ten times slower, felt with 10^5 clips.
        return {
            "id": self.id,
            "source_id": self.source_id,
            "start_s": self.start_s,
            "duration_s": self.duration_s,
            "split": self.split,
            "labels": self.labels,
            "events": [
                {"label": event.label, "modality": event.modality, "start_s": event.start_s, "end_s": event.end_s}
                for event in self.events
            ],
            "media": self.media,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Clip:
        values = dict(values)
        # Names repeat in every clip; one object each halves what a large manifest takes.
        values["split"] = sys.intern(values["split"])
        values["labels"] = tuple(map(sys.intern, values["labels"]))
        values["events"] = tuple(
            Event(sys.intern(event["label"]), sys.intern(event["modality"]), event["start_s"], event["end_s"])
            for event in values["events"]
        )
        return cls(**values)


@dataclass(frozen=True)
class Manifest:
    """An ordered list of clips with its vocabulary and the facts about the dataset.

    It leaves out features and files.  Row order is part of it: legacy exports number rows by it.

    Args:
        dataset: short name, `ave`.
        clips: in annotation order.
        classes: vocabulary; the position is the class index.
        facts: of `manifests/<dataset>/dataset.yaml` and of how this manifest was made; JSON values.
    """

    dataset: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(clip.id for clip in self.clips)

    @property
    def durations(self) -> frozenset[float | None]:
        """Every length that a clip has, seconds."""
        return frozenset(clip.duration_s for clip in self.clips)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over dataset, classes and clips: two manifests with the same digest are interchangeable."""
        hasher = hashlib.sha256(json.dumps([self.dataset, self.classes]).encode())
        for clip in self.clips:
            hasher.update(clip_bytes(clip))
        return hasher.hexdigest()

    def media_digest(self, count: int) -> str:
        """SHA-256 over what of the first `count` clips decides their features; labels and splits do not."""
        return media_digest(self.clips[:count])

    def split(self, name: str) -> tuple[Clip, ...]:
        """Clips of one split, in manifest order."""
        return tuple(clip for clip in self.clips if clip.split == name)

    def splits(self) -> dict[str, int]:
        """Number of clips per split, in order of appearance."""
        return dict(Counter(clip.split for clip in self.clips))

    def problems(self) -> list[str]:
        """Everything wrong with the manifest, one sentence each; empty if it is sound."""
        found = []
        known = set(self.classes)
        for clip_id, times in Counter(self.ids).items():
            if times > 1:
                found.append(f"clip id {clip_id!r} occurs {times} times")
        for name, times in Counter(self.classes).items():
            if times > 1:
                found.append(f"class {name!r} occurs {times} times")
        for row, clip in enumerate(self.clips):
            found.extend(f"clip {row} ({clip.id}): {problem}" for problem in _clip_problems(clip, known))
        return found

    def check(self) -> Manifest:
        """Itself, if it has no problems.

        Raises:
            ManifestError: lists all of them.
        """
        if found := self.problems():
            raise ManifestError(f"manifest of {self.dataset}", found)
        return self

    def shard(self, index: int, count: int, block: int = 256) -> range:
        """Rows of job `index` of `count`: whole blocks of `block` clips, the same for ever for the same numbers.

        Raises:
            ValueError: index outside 0 .. count-1.
        """
        return shard(len(self), index, count, block)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write Parquet, atomically."""
        from pipeline.manifest_file import write

        write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read what `save` wrote; a job that needs only its own clips reads them with `ManifestFile`.

        Raises:
            ManifestError: not a manifest, or one of another format version.
        """
        from pipeline.manifest_file import load

        return load(path)


def clip_bytes(clip: Clip) -> bytes:
    """What digests are taken of."""
    return json.dumps(clip.to_dict(), sort_keys=True).encode()


def media_digest(clips: Iterable[Clip]) -> str:
    """See `Manifest.media_digest`."""
    hasher = hashlib.sha256()
    for clip in clips:
        values = (clip.id, clip.source_id, clip.start_s, clip.duration_s, clip.media)
        hasher.update(json.dumps(values).encode())
    return hasher.hexdigest()


def shard(clips: int, index: int, count: int, block: int) -> range:
    """Rows of job `index` of `count` among so many clips; see `Manifest.shard`."""
    if not 0 <= index < count:
        raise ValueError(f"shard {index}/{count}: the first number runs from 0 to {count - 1}")
    blocks = -(-clips // block)
    first, last = blocks * index // count, blocks * (index + 1) // count
    return range(min(first * block, clips), min(last * block, clips))


class ManifestError(Exception):
    """A manifest or an annotation file cannot be used; lists every problem, not the first."""

    def __init__(self, what: str, problems: list[str]) -> None:
        self.what = what
        self.problems = problems
        shown = problems[:20] + ([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])
        super().__init__(f"{what}: {len(problems)} problem(s)\n" + "\n".join(f"  {line}" for line in shown))


def _clip_problems(clip: Clip, known: set[str]) -> list[str]:
    found = []
    for check, value in ((check_id, clip.id), (lambda v: check_id(v, "source id"), clip.source_id)):
        try:
            check(value)
        except ValueError as error:
            found.append(str(error))
    if clip.media is not None:
        try:
            check_relative(clip.media)
        except ValueError as error:
            found.append(str(error))
    if clip.duration_s is not None and not 0 < clip.duration_s < math.inf:
        found.append(f"duration {clip.duration_s} s is not a positive number")
    if clip.start_s is not None and not 0 <= clip.start_s < math.inf:
        found.append(f"start {clip.start_s} s is not a number from 0 up")
    for label in clip.labels:
        if label not in known:
            found.append(f"label {label!r} is not in the vocabulary")
    for event in clip.events:
        if event.label not in known:
            found.append(f"event label {event.label!r} is not in the vocabulary")
        if event.modality not in MODALITIES:
            found.append(f"event modality {event.modality!r} is none of {', '.join(MODALITIES)}")
        if not 0 <= event.start_s <= event.end_s < math.inf:
            found.append(f"event {event.start_s}..{event.end_s} s is not an interval")
    return found
