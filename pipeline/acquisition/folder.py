"""Files that the user already has, in a folder or below it."""

from __future__ import annotations

from pathlib import Path

from pipeline.acquisition.source import EITHER, Fetched, Index, Place
from pipeline.datasets.folder import media_files
from pipeline.manifest import Clip, ManifestError


class FolderSource:
    """Media files of a folder, matched by the ids in their names.

    Hidden files, and links that lead outside the folder, are not looked at.

    Args:
        folder: looked through with everything below it.
        holds: `clips`, `videos` or `auto`.
    Raises:
        ManifestError: no such folder.
    """

    name, remote = "folder", False

    def __init__(self, folder: Path, holds: str = EITHER) -> None:
        if not folder.is_dir():
            raise ManifestError(f"--from {folder}", ["no such folder"])
        self.folder = folder
        self._index = Index(media_files(folder)[0], holds)

    def locate(self, clip: Clip) -> Place | None:
        return self._index.find(clip)

    def fetch(self, place: Place, folder: Path) -> Fetched:
        return Fetched(self.folder / place.name, owned=False)

    def size(self, place: Place) -> int | None:
        return (self.folder / place.name).stat().st_size

    def versions(self) -> dict[str, str]:
        return {}
