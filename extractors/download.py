"""Published checkpoints fetched into the cache folder, once for all processes, and verified."""

from __future__ import annotations

import contextlib
import fcntl
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from extractors.weights import CACHE_VARIABLE, Weights, WeightsError, cache_folder, verify

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60


def fetch(record: Weights, folder: Path | None = None) -> tuple[Path, str]:
    """Path and SHA-256 of the verified checkpoint, downloading it into the cache if it is not there.

    A partial download is resumed; a damaged file in the cache is refused and fetched once more.  Of several processes
    that want the same file one fetches it, and the others wait.

    Raises:
        WeightsError: no network, no direct address, or the publisher's file does not match the record.
    """
    folder = folder or cache_folder()
    path = folder / record.file
    if found := _kept(path, record):
        return found
    by_hand = (
        f"Place the file by hand as {path} (from {record.page}; {_how_to_tell(record)}), "
        f"or pass --weights PATH, or --weights random:0 to try the pipeline without real weights."
    )
    if record.url is None:
        raise WeightsError(f"{record.name}: the publisher has no direct download address. {by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"{record.name}: no folder to download to ({error}). Set {CACHE_VARIABLE} to one that can be written. "
            + by_hand
        ) from error
    partial = folder / (record.file + ".partial")
    with _alone(folder / (record.file + ".lock")):
        if found := _kept(path, record):  # another process has fetched it meanwhile
            return found
        try:
            _download(record.url, partial)
        except (urllib.error.URLError, OSError) as error:
            refused = f"{_fault(path, record)} " if path.exists() else ""
            message = f"{refused}{record.name}: could not download {record.url} ({error}). {by_hand}"
            raise WeightsError(message) from error
        try:
            digest = verify(partial, record)
        except WeightsError:
            partial.unlink()
            raise
        os.replace(partial, path)
    return path, digest


def _how_to_tell(record: Weights) -> str:
    """What is published of the file's size and digest, for a person who looks for it."""
    size = "" if record.size_bytes is None else f"{record.size_bytes} bytes, "
    if record.sha256 is None:
        return f"{size}no SHA-256 is published"
    return f"{size}SHA-256 {'' if len(record.sha256) == 64 else 'beginning with '}{record.sha256}"


def _fault(path: Path, record: Weights) -> str:
    """Why a file in the cache is refused; empty if it is not."""
    try:
        verify(path, record)
    except WeightsError as error:
        return str(error)
    return ""


def _kept(path: Path, record: Weights) -> tuple[Path, str] | None:
    """The file in the cache; None if it has to be fetched, a damaged one that can be fetched again included."""
    if not path.exists():
        return None
    try:
        return path, verify(path, record)
    except WeightsError:
        if record.url is None:
            raise
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds the file, and hold it; not where the file system has no locks."""
    with open(path, "ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, partial: Path) -> None:
    """Download to `partial`, continuing where an earlier attempt stopped if the server allows it."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the partial file is already whole
            raise
        return
    with response:
        resumed = have and response.status == 206
        expected = response.headers.get("Content-Length")
        start = have if resumed else 0
        with open(partial, "ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
    size = partial.stat().st_size
    if expected is not None and size != start + int(expected):
        raise OSError(f"connection ended after {size} of {start + int(expected)} bytes; run again to resume")
