"""HTTP(S) lists: a table of ids and URLs, or a URL with `{id}` in it."""

from __future__ import annotations

import csv
import urllib.parse
from pathlib import Path

from pipeline.acquisition.client import Client, check_url
from pipeline.acquisition.refusals import Refusal
from pipeline.acquisition.source import CLIP, EITHER, Fetched, Place
from pipeline.manifest import Clip, ManifestError, check_id


class WebSource:
    """Files on a web server.

    Args:
        origin: a URL with `{clip_id}` (a trimmed clip each) or `{source_id}` in it; a file with lines `id<tab>URL`
            (comma or spaces do as well), ids being clip or source ids; or the URL of such a file.
        client: does the fetching.
        folder: where a list is put that must be fetched first.
        holds: `clips`, `videos` or `auto`.
    Raises:
        ManifestError: lists what is wrong with the list.
        Refusal: the list cannot be fetched.
    """

    name, remote = "http", True

    def __init__(self, origin: str, client: Client, folder: Path, holds: str = EITHER) -> None:
        self.client, self.holds = client, holds
        self._template, self._urls, self._kinds = "", {}, None
        if "{clip_id}" in origin or "{source_id}" in origin:
            self._template = origin
        elif origin.lower().startswith(("http://", "https://")):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "list"
            # A list that we had to fetch may name public addresses and those of its own kind, as a redirect may.
            self._kinds = {"public", client.fetch(origin, path)}
            self._urls = read_list(path)
            path.unlink()
        else:
            self._urls = read_list(Path(origin))

    def locate(self, clip: Clip) -> Place | None:
        if self._template:
            quoted = {name: urllib.parse.quote(getattr(clip, field), safe="") for name, field in _FIELDS.items()}
            url = self._template
            for name, value in quoted.items():
                url = url.replace("{" + name + "}", value)
            return Place(url, CLIP if "{clip_id}" in self._template and self.holds == EITHER else self.holds)
        if clip.id in self._urls and clip.id != clip.source_id:
            return Place(self._urls[clip.id], self.holds)
        return Place(self._urls[clip.source_id], self.holds) if clip.source_id in self._urls else None

    def fetch(self, place: Place, folder: Path) -> Fetched:
        path = folder / "download"
        self.client.fetch(place.name, path, self._kinds)
        return Fetched(path, owned=True)

    def size(self, place: Place) -> int | None:
        return None

    def versions(self) -> dict[str, str]:
        import platform

        return {"python": platform.python_version()}


_FIELDS = {"clip_id": "id", "source_id": "source_id"}


def read_list(path: Path) -> dict[str, str]:
    """URLs by id.

    Raises:
        ManifestError: lists missing files, lines without an id and an http(s) URL, and ids with two URLs.
    """
    problems: list[str] = []
    urls: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"--from {path}", [f"unreadable: {error}"]) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = next(csv.reader([line])) if "," in line and "\t" not in line else line.split()
        try:
            name, url = (field.strip() for field in fields[:2])
            check_id(name, "id")
            check_url(url)
        except (ValueError, Refusal) as error:
            problems.append(f"{path}:{number}: expected an id and a URL: {line[:120]!r} ({error})")
            continue
        if urls.setdefault(name, url) != url:
            problems.append(f"{path}:{number}: {name} has another URL above")
    if problems:
        raise ManifestError(f"--from {path}", problems)
    return urls
