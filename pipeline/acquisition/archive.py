"""Zip and tar archives that the user already has, read without trusting them.

An archive is looked through once before anything is taken out.  One name that leads outside, one link, device or bomb,
and the whole archive is refused.  Members are then streamed under names of our own; their paths are never used on disk.
"""

from __future__ import annotations

import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.acquisition import disk
from pipeline.acquisition.refusals import Refusal
from pipeline.acquisition.source import EITHER, Fetched, Index, Place
from pipeline.datasets.folder import SUFFIXES
from pipeline.manifest import Clip, ManifestError, check_relative

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Beyond these an archive is a bomb.

    Args:
        member_bytes, total_bytes: unpacked.
        ratio: unpacked to packed bytes; videos hardly compress, so even 20 would be odd.
        ratio_from_bytes: unpacked sizes below this may have any ratio.
        members: entries.
    """

    member_bytes: int = 4 << 30
    total_bytes: int = 2 << 40
    ratio: float = 50.0
    ratio_from_bytes: int = 1 << 20
    members: int = 2_000_000


class ArchiveSource:
    """Members of archives, matched by the ids in their names.

    Args:
        paths: zip or tar files.
        holds: `clips`, `videos` or `auto`.
        limits: see `Limits`.
    Raises:
        ManifestError: lists everything that is wrong with the archives; none of it has been unpacked.
    """

    name, remote = "archive", False

    def __init__(self, paths: list[Path], holds: str = EITHER, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._members: dict[str, tuple[Path, Any, int]] = {}
        self._open: dict[Path, tarfile.TarFile] = {}
        self._lock = threading.Lock()  # a tar archive has one position
        problems: list[str] = []
        for path in paths:
            self._scan(path, problems)
        if problems:
            raise ManifestError("archives (nothing was unpacked)", problems)
        self._index = Index(self._members, holds)
        self._order = {name: number for number, name in enumerate(self._members)}

    def locate(self, clip: Clip) -> Place | None:
        place = self._index.find(clip)
        return place and Place(place.name, place.holds, self._order[place.name])

    def size(self, place: Place) -> int | None:
        return self._members[place.name][2]

    def versions(self) -> dict[str, str]:
        return {}

    def fetch(self, place: Place, folder: Path) -> Fetched:
        path, entry, size = self._members[place.name]
        made = folder / ("member" + Path(place.name).suffix.lower())
        try:
            with self._lock:
                if isinstance(entry, zipfile.ZipInfo):
                    with zipfile.ZipFile(path) as archive, archive.open(entry) as stream:
                        _copy(stream, made, size)
                else:
                    if path not in self._open:
                        # Kept open for the run: reopening a compressed tar would unpack it from its start each time.
                        self._open[path] = tarfile.open(path)  # noqa: SIM115
                    with self._open[path].extractfile(entry) as stream:
                        _copy(stream, made, size)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
            disk.check_error(error, made)
            raise Refusal("decode-error", f"{place.name} cannot be read from {path.name}: {error}") from error
        return Fetched(made, owned=True)

    def _scan(self, path: Path, problems: list[str]) -> None:
        if not path.is_file():
            problems.append(f"{path}: no such file")
            return
        try:
            entries = list(_entries(path, self.limits))
        except _Bomb as error:
            problems.append(f"{path}: {error}")
            return
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
            problems.append(f"{path}: unreadable, or neither zip nor tar ({error})")
            return
        total = 0
        for name, problem, size, entry in entries:
            if problem:
                problems.append(f"{path}: member {name!r}: {problem}")
            elif size > self.limits.member_bytes:
                problems.append(f"{path}: member {name!r}: {size} bytes unpacked, more than {self.limits.member_bytes}")
            total += size
            plain = name[2:] if name.startswith("./") else name
            if Path(plain).suffix.lower() in SUFFIXES:
                self._members.setdefault(plain, (path, entry, size))
        if total > self.limits.total_bytes:
            problems.append(f"{path}: {total} bytes unpacked, more than {self.limits.total_bytes}")


class _Bomb(Exception):
    pass


def _entries(path: Path, limits: Limits) -> Iterator[tuple[str, str, int, Any]]:
    """Name, problem or ``, unpacked bytes and entry of every file in an archive; folders are only checked."""
    if zipfile.is_zipfile(path):
        yield from _zip_entries(path, limits)
        return
    most_bytes, total = max(path.stat().st_size * limits.ratio, limits.ratio_from_bytes), 0
    with tarfile.open(path) as archive:
        _guard(archive, most_bytes)
        for number, entry in enumerate(archive):
            if number >= limits.members:
                raise _Bomb(f"more than {limits.members} members")
            total += entry.size
            if total > most_bytes:  # before the reader skips over the member by unpacking it
                raise _Bomb(f"its headers promise more than {most_bytes:.0f} bytes, as in a bomb")
            problem = _name_problem(entry.name)
            if entry.issym() or entry.islnk():
                problem = problem or f"a link to {entry.linkname!r}"
            elif not entry.isfile() and not entry.isdir():
                problem = problem or "a device, pipe or other special file"
            if entry.issparse():
                problem = problem or "a sparse file, which can claim any size"
            if problem or entry.isfile():
                yield entry.name, problem, entry.size, entry


def _zip_entries(path: Path, limits: Limits) -> Iterator[tuple[str, str, int, Any]]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > limits.members:
            raise _Bomb(f"{len(entries)} members, more than {limits.members}")
        if sum(entry.compress_size for entry in entries) > path.stat().st_size:
            raise _Bomb("members overlap, as in a zip bomb")
        for entry in entries:
            problem = _name_problem(entry.filename)
            mode = entry.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = problem or ("a link" if stat.S_ISLNK(mode) else "a device, pipe or other special file")
            if entry.flag_bits & 1:
                problem = problem or "encrypted"
            too_dense = entry.file_size > max(entry.compress_size, 1) * limits.ratio
            if entry.file_size > limits.ratio_from_bytes and too_dense:
                problem = problem or f"{entry.compress_size} bytes unpack to {entry.file_size}, as in a bomb"
            if problem or not entry.is_dir():
                yield entry.filename, problem, entry.file_size, entry


def _name_problem(name: str) -> str:
    try:
        check_relative(name)
    except ValueError:
        return "its name leads outside the archive's own folder"
    return "its name starts with a drive letter" if name[1:2] == ":" else ""


def _guard(archive: tarfile.TarFile, most_bytes: float) -> None:
    """Let a compressed tar be read only so far: its unpacked size is known only by unpacking it."""
    stream = archive.fileobj
    read: Callable[[int], bytes] = stream.read

    def guarded(size: int = -1) -> bytes:
        if stream.tell() > most_bytes:
            raise _Bomb(f"unpacks to more than {most_bytes:.0f} bytes, as in a bomb")
        return read(size)

    if type(stream).__module__ in ("gzip", "bz2", "lzma"):
        stream.read = guarded


def _copy(stream: IO[bytes], made: Path, size: int) -> None:
    left = size
    with open(made, "wb") as file:
        while block := stream.read(min(_BLOCK_BYTES, left + 1)):
            left -= len(block)
            if left < 0:
                raise OSError(f"more than the {size} bytes that its header says")
            file.write(block)
    if left:
        raise OSError(f"{left} of {size} bytes are missing")
