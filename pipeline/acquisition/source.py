"""What the four sources have in common: they say where a clip could be had, and bring it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.manifest import Clip

#: What a file holds: the trimmed clip, the video it is cut from, or whichever its length fits.
CLIP, VIDEO, EITHER = "clips", "videos", "auto"


@dataclass(frozen=True)
class Place:
    """Where something could be had.

    Args:
        name: URL, path or archive member; clips with the same name share one download.
        holds: `clips`, `videos` or `auto`.
        order: sorts the work, for sources that are best read in order.
    """

    name: str
    holds: str = EITHER
    order: int = 0


@dataclass(frozen=True)
class Fetched:
    """A file that a source brought.

    Args:
        path: of the file.
        owned: it lies in the work folder and may be moved away or deleted.
    """

    path: Path
    owned: bool


class Source(Protocol):
    """Where clips come from.  `remote` sources are paced and may ask us to stop."""

    name: str
    remote: bool

    def locate(self, clip: Clip) -> Place | None:
        """Where the clip could be had, without asking anybody; None if this source has nothing by its ids."""

    def fetch(self, place: Place, folder: Path) -> Fetched:
        """Bring it, into `folder` unless it is a file already.  What an earlier try left there is continued.

        Raises:
            Refusal: with an outcome of the closed list.
        """

    def size(self, place: Place) -> int | None:
        """Bytes, where that is known without asking anybody."""

    def versions(self) -> dict[str, str]:
        """Of the tools that fetch."""


class Index:
    """File names by the ids in them: `ID.mp4`, `full/ID.webm`, `A title [ID].mkv`, `v_ID.mp4`.

    Args:
        names: relative POSIX paths; the order decides between equals.
        holds: `auto`, or what all files hold.
    """

    def __init__(self, names: Iterable[str], holds: str = EITHER) -> None:
        self.holds = holds
        self._paths: set[str] = set()
        self._stems: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        self._quoted: dict[str, str] = {}
        for name in names:
            self._paths.add(name)
            *folders, last = name.split("/")
            stem = last.rpartition(".")[0] or last
            table = self._whole if folders[-1:] == ["full"] else self._stems
            table.setdefault(stem, name)
            if stem.endswith("]") and "[" in stem:
                self._quoted.setdefault(stem[stem.rindex("[") + 1 : -1], name)
            elif stem.startswith("v_"):
                self._quoted.setdefault(stem[2:], name)

    def find(self, clip: Clip) -> Place | None:
        """The best match for a clip: its own path, its id, then its video's id."""
        if clip.media is not None and clip.media in self._paths:
            return Place(clip.media, CLIP)
        if clip.id in self._stems:
            return Place(
                self._stems[clip.id], self.holds if clip.id == clip.source_id or self.holds != EITHER else CLIP
            )
        if clip.source_id in self._whole:
            return Place(self._whole[clip.source_id], VIDEO)
        for table in (self._stems, self._quoted):
            if clip.source_id in table:
                return Place(table[clip.source_id], self.holds)
        return None


def decide(holds: str, length_s: float, clip: Clip, starts: int, tolerance_s: float) -> str:
    """Whether a file is the trimmed clip or the video around it.

    Args:
        holds: what the source knows; anything but `auto` is the answer.
        length_s: of the file.
        starts: different starts among the clips that share the file; a file cannot be two trimmed clips.
        tolerance_s: by which a trimmed clip may differ from its annotated length.
    """
    if holds != EITHER:
        return holds
    if clip.start_s is None or clip.duration_s is None:
        return CLIP
    if starts > 1:
        return VIDEO
    return CLIP if abs(length_s - clip.duration_s) <= max(tolerance_s, 1.0) else VIDEO
