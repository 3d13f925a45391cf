"""The ledger: one JSON line per attempt at a clip, only ever appended.

A line is written whole and flushed to the disk before the run goes on.  A line that a crash tore is skipped and counted
when the ledger is read back, and the next record starts on a line of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.acquisition.refusals import NEVER, redact
from pipeline.outcomes import CODES
from pipeline.run import log


@dataclass(frozen=True)
class Attempt:
    """What one try at one clip came to.

    Args:
        clip: id.
        dataset: short name of the manifest.
        source_id: of the video.
        outcome: of `pipeline.outcomes`.
        message: raw words of the site or tool, `` if there is nothing to say.
        again: `stop`, `later` or `never`: whether another try is worth it.
        source: `youtube`, `folder`, `archive` or `http`.
        place: what was asked for: URL, path or archive member.
        time: UTC, ISO 8601.
        versions: of the tools that had a part in it.
        media: of an `ok` attempt: file, bytes, sha256, how it was made, and what is in it.
    """

    clip: str
    dataset: str
    source_id: str
    outcome: str
    message: str = ""
    again: str = NEVER
    source: str = ""
    place: str = ""
    time: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    media: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value not in (None, "", {})}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Attempt:
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Stop:
    """The site asked us to go away.

    Args:
        outcome: `bot-check` or `rate-limited`.
        message: raw words.
        source: which source stopped.
        time, come_back: UTC, ISO 8601.
    """

    outcome: str
    message: str
    source: str
    time: str
    come_back: str


class Ledger:
    """Reads the whole ledger and appends to it; see `locked` for keeping a second writer out.

    Args:
        path: of the JSON lines file; made when the first record is written.
        dataset: only attempts at its clips are remembered; several data sets may share a file.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self.path, self.dataset = Path(path), dataset
        self.torn = 0
        self.attempts: dict[str, list[Attempt]] = {}
        self.stops: list[Stop] = []
        self._lock = threading.Lock()
        self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if "come_back" in values:
                    self.stops.append(Stop(**values))
                elif values["outcome"] in CODES:
                    if values["dataset"] == self.dataset:
                        self._keep(Attempt.from_dict(values))
                else:
                    self.torn += 1
            except (ValueError, TypeError, KeyError):
                self.torn += 1

    def _keep(self, attempt: Attempt) -> None:
        self.attempts.setdefault(attempt.clip, []).append(attempt)

    def add(self, *attempts: Attempt) -> None:
        """Append attempts.  They are on the disk when this returns."""
        attempts = tuple(
            replace(attempt, message=redact(attempt.message), place=redact(attempt.place)) for attempt in attempts
        )
        with self._lock:
            self._append([attempt.to_dict() for attempt in attempts])
            for attempt in attempts:
                self._keep(attempt)

    def stop(self, stop: Stop) -> None:
        """Append that the site asked us to go away."""
        stop = replace(stop, message=redact(stop.message))
        with self._lock:
            self._append([{name: getattr(stop, name) for name in Stop.__dataclass_fields__}])
            self.stops.append(stop)

    def _append(self, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        lines = b"".join(json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n" for values in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def last(self, clip_id: str) -> Attempt | None:
        """The newest attempt at a clip."""
        tries = self.attempts.get(clip_id)
        return tries[-1] if tries else None

    def delivered(self, clip_id: str) -> Attempt | None:
        """The newest `ok` attempt at a clip; whether its file is still there is another question."""
        return next((attempt for attempt in reversed(self.attempts.get(clip_id, [])) if attempt.outcome == "ok"), None)

    def final(self, clip_id: str) -> Attempt | None:
        """The attempt that says how the clip ended.

        The newest one, except that `absent` in one place does not make a reason given elsewhere forgotten.
        """
        tries = self.attempts.get(clip_id, [])
        return next(
            (attempt for attempt in reversed(tries) if attempt.outcome != "absent"), tries[-1] if tries else None
        )


def now() -> str:
    """This moment, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(paths: Iterable[Path], wait: bool = False) -> Iterator[None]:
    """Hold files against a second run.

    Args:
        wait: until another run has let go of them, after a word to the person at the keyboard.
    Raises:
        ValueError: another run holds one of them, and `wait` is off.
    """
    import fcntl

    with contextlib.ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise ValueError(f"another acquire is at work on {path.parent}; wait for it or stop it") from None
                log(f"another acquire is at work on {path.parent}; waiting for it to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                continue  # a file system without locks: then nobody can be kept out
        yield
