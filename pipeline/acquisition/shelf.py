"""The media folder: where a clip's file belongs, whether it is there, and how it gets there whole or not at all.

<media>/<clip.id>.mp4          the clip          <media>/full/<source_id>.mkv   an original kept uncut
<media>/.partial/...           work in progress  <media>/media.<dataset>.jsonl  what is here and how it was made
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.acquisition.ledger import Attempt
from pipeline.acquisition.source import Place
from pipeline.datasets.folder import SUFFIXES
from pipeline.manifest import Clip, check_id, check_relative
from pipeline.run import write_json

# Ogg video under a name that extract looks for; decoders go by content.
_RENAMED = {".ogv": ".mkv"}


class Shelf:
    """The files of one media folder.

    Args:
        folder: made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.partial = self.folder / ".partial"
        self._digests: dict[tuple[Path, int, int], str] = {}

    def target(self, clip: Clip, ending: str) -> Path:
        """Where the trimmed clip belongs."""
        if clip.media is not None:
            return self.folder / check_relative(clip.media)
        return self.folder / (check_id(clip.id) + self._known(ending))

    def original(self, source_id: str, ending: str) -> Path:
        """Where an uncut video belongs."""
        return self.folder / "full" / (check_id(source_id, "source id") + self._known(ending))

    @staticmethod
    def _known(ending: str) -> str:
        ending = ending.lower()
        return _RENAMED.get(ending, ending) if ending in SUFFIXES else ".mp4"

    def find(self, clip: Clip) -> Path | None:
        """A file that stands where the trimmed clip belongs, whatever is in it."""
        if clip.media is not None:
            paths = [self.target(clip, "")]
        else:
            paths = [self.target(clip, ending) for ending in (".mp4", *sorted(SUFFIXES))]
        return next((path for path in paths if path.is_file()), None)

    def find_original(self, source_id: str) -> Path | None:
        """An uncut video that an earlier run, of this or of another data set, left here."""
        paths = (self.original(source_id, ending) for ending in (".mp4", ".mkv", *sorted(SUFFIXES)))
        return next((path for path in paths if path.is_file()), None)

    def holds(self, attempt: Attempt) -> bool:
        """Whether the file of an `ok` attempt is there, byte for byte as it was verified."""
        media = attempt.media or {}
        try:
            path = self.folder / check_relative(media["file"])
            return path.stat().st_size == media["bytes"] and self.digest(path) == media["sha256"]
        except (OSError, KeyError, ValueError):
            return False

    def describe(self, path: Path) -> dict[str, Any]:
        """Name, size and SHA-256 of a file in the folder."""
        return {
            "file": path.relative_to(self.folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": self.digest(path),
        }

    def digest(self, path: Path) -> str:
        """SHA-256, read once for each version of a file."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            with open(path, "rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]

    def work(self, place: Place) -> Path:
        """A folder for the work on one place, the same in every run; made if need be, cuts of a dead run removed."""
        folder = self.partial / hashlib.sha256(place.name.encode()).hexdigest()[:24]
        shutil.rmtree(folder / "new", ignore_errors=True)
        (folder / "new").mkdir(parents=True)
        return folder

    def put(self, path: Path, target: Path) -> None:
        """Rename a verified file to its final name; it is on the disk under that name or under none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        path.replace(target)

    def intend(self, attempt: Attempt) -> None:
        """Note what is about to be put, so that a run killed before its ledger line is written can write it later."""
        write_json(self._intention(attempt.clip), attempt.to_dict())

    def intention(self, clip_id: str) -> Attempt | None:
        """What a killed run was about to record, if the file of it is there."""
        try:
            attempt = Attempt.from_dict(json.loads(self._intention(clip_id).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return attempt if self.holds(attempt) else None

    def settle(self, clip_id: str) -> None:
        """The ledger has the line; forget the intention."""
        self._intention(clip_id).unlink(missing_ok=True)

    def _intention(self, clip_id: str) -> Path:
        return self.partial / "intended" / (check_id(clip_id) + ".json")

    def sweep(self) -> None:
        """Remove all work in progress, at the end of a run that left nothing to continue."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def write_records(self, dataset: str, attempts: Iterable[Attempt]) -> Path:
        """Write the manifest of media: one line per clip that is here, with how it was made and what is in it."""
        path = self.folder / f"media.{check_id(dataset, 'dataset')}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            for attempt in attempts:
                line = {"clip": attempt.clip, "source_id": attempt.source_id, "source": attempt.source, **attempt.media}
                file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
        partial.replace(path)
        return path


def bring(path: Path, made: Path, link: bool) -> None:
    """A copy of a file, or a second name for it where that is wanted and possible."""
    made.parent.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    if link:
        try:
            os.link(path.resolve(), made)
            return
        except OSError:
            pass  # another file system: copy
    shutil.copyfile(path, made)
