"""What happens in each demo clip, before anything is drawn: who is seen and who is heard, and when."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.manifest import Event, ManifestError

#: Part of the plan: raise it when scenes, drawing or sound change, so that old media are made anew.
GENERATOR = 2
CLIP_S = 10
TEACHER_S = 2
PREFIX = {"train": "demo-tr", "val": "demo-va", "test": "demo-te", "teacher": "demo-tc"}
#: What is wrong with the broken clips, and the split in which each kind lies.
BROKEN = (
    ("zero-byte", "train"),
    ("truncated", "train"),
    ("no-audio", "train"),
    ("no-video", "test"),
    ("too-short", "val"),
    ("not-media", "test"),
    ("absent", "train"),
)


@dataclass(frozen=True)
class DemoPlan:
    """How many clips of each kind; the same plan gives the same scenes for ever."""

    train: int = 42
    val: int = 12
    test: int = 12
    teacher: int = 96
    broken: int = len(BROKEN)
    seed: int = 0
    generator: int = GENERATOR

    @classmethod
    def from_text(cls, text: str, seed: int = 0) -> DemoPlan:
        """Of `42,12,12,96,7`: train, val, test, teacher, broken.

        Raises:
            ManifestError: not five whole numbers, or more kinds of broken clips than there are.
        """
        fields = text.split(",")
        if len(fields) != 5 or not all(field.isdecimal() for field in fields) or int(fields[4]) > len(BROKEN):
            wanted = f"five whole numbers train,val,test,teacher,broken, the last at most {len(BROKEN)}"
            raise ManifestError("demo plan", [f"{text!r}: expected {wanted}"])
        return cls(*map(int, fields), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Stretch:
    """A class seen, or heard, during whole seconds [start_s, end_s)."""

    label: str
    start_s: int
    end_s: int


@dataclass(frozen=True)
class Scene:
    """The contents of one clip.

    Args:
        id: 11 characters, the form of a YouTube id, so that the published file layouts fit.
        sights, sounds: what is drawn and what is played.
        main: the one class that is seen and heard together, and when; None for none (some teacher clips).
        broken: what is wrong with the file on purpose, `` for nothing.
    """

    id: str
    split: str
    duration_s: int
    sights: tuple[Stretch, ...]
    sounds: tuple[Stretch, ...]
    main: Stretch | None
    seed: tuple[int, ...]
    broken: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything seen or heard, the main class first."""
        first = (self.main,) if self.main else ()
        return tuple(dict.fromkeys(stretch.label for stretch in (*first, *self.sounds, *self.sights)))

    @property
    def events(self) -> tuple[Event, ...]:
        """The main event as `both`; what is only heard or only seen, apart."""
        both = [Event(self.main.label, "both", self.main.start_s, self.main.end_s)] if self.main else []
        apart = [
            Event(stretch.label, modality, start_s, end_s)
            for modality, stretches in (("audio", self.sounds), ("visual", self.sights))
            for stretch in stretches
            for start_s, end_s in _without(stretch, self.main)
        ]
        return tuple(
            dataclasses.replace(event, start_s=float(event.start_s), end_s=float(event.end_s)) for event in both + apart
        )


def scenes(plan: DemoPlan, classes: tuple[str, ...]) -> tuple[Scene, ...]:
    """All scenes: train, val, test, the broken ones, teacher."""
    made = [
        _event_scene(f"{PREFIX[split]}{number:04d}", split, number, (plan.seed, stream, number), classes)
        for stream, split in enumerate(("train", "val", "test"))
        for number in range(getattr(plan, split))
    ]
    made += [
        dataclasses.replace(
            _event_scene(f"demo-br{number:04d}", split, number, (plan.seed, 3, number), classes), broken=kind
        )
        for number, (kind, split) in enumerate(BROKEN[: plan.broken])
    ]
    made += [_teacher_scene(number, (plan.seed, 4, number), classes) for number in range(plan.teacher)]
    return tuple(made)


def _event_scene(name: str, split: str, number: int, seed: tuple[int, ...], classes: tuple[str, ...]) -> Scene:
    """One audio-visual event; around it the class may be only heard or only seen; another class may be one of these."""
    rng = np.random.default_rng(seed)
    label = classes[number % len(classes)]
    length = CLIP_S if rng.random() < 0.15 else int(rng.integers(3, 8))
    start = int(rng.integers(0, CLIP_S - length + 1))
    end = start + length
    heard, seen = [start, end], [start, end]
    early, late = (_pick(rng, heard, seen) for _ in range(2))
    if early and start:
        early[0] = start - int(rng.integers(1, start + 1))
    if late and end < CLIP_S:
        late[1] = end + int(rng.integers(1, CLIP_S - end + 1))
    sounds, sights = [Stretch(label, *heard)], [Stretch(label, *seen)]
    if rng.random() < 0.6:
        other = classes[(number + int(rng.integers(1, len(classes)))) % len(classes)]
        first = int(rng.integers(0, CLIP_S - 3))
        last = min(first + int(rng.integers(3, 7)), CLIP_S)
        (sounds if rng.random() < 0.5 else sights).append(Stretch(other, first, last))
    return Scene(name, split, CLIP_S, tuple(sights), tuple(sounds), Stretch(label, start, end), seed)


def _pick(rng: np.random.Generator, heard: list[int], seen: list[int]) -> list[int] | None:
    return (None, heard, seen)[int(rng.integers(0, 3))]


def _teacher_scene(number: int, seed: tuple[int, ...], classes: tuple[str, ...]) -> Scene:
    """Two seconds in which one class (every seventh time none) is seen and heard, sometimes with a second."""
    rng = np.random.default_rng(seed)
    position = number % (len(classes) + 1)
    main = Stretch(classes[position], 0, TEACHER_S) if position < len(classes) else None
    seen, heard = ([main] if main else [] for _ in range(2))
    if main:
        for stretches in (seen, heard):
            if rng.random() < 0.3:
                other = classes[(position + int(rng.integers(1, len(classes)))) % len(classes)]
                stretches.append(Stretch(other, 0, TEACHER_S))
        if len(seen) == len(heard) == 2 and seen[1] == heard[1]:
            heard.pop()  # a second class is seen or heard, never both: an event scene has one audio-visual event
    return Scene(f"{PREFIX['teacher']}{number:04d}", "teacher", TEACHER_S, tuple(seen), tuple(heard), main, seed)


def _without(stretch: Stretch, main: Stretch | None) -> list[tuple[int, int]]:
    """The parts of a stretch that the main event of the same class does not cover."""
    if main is None or stretch.label != main.label:
        return [(stretch.start_s, stretch.end_s)]
    parts = [(stretch.start_s, min(stretch.end_s, main.start_s)), (max(stretch.start_s, main.end_s), stretch.end_s)]
    return [(start_s, end_s) for start_s, end_s in parts if start_s < end_s]
