"""Annotation files: fetched from the repository their description names, or taken from a folder; checked either way."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.acquisition import disk
from pipeline.acquisition.client import Client
from pipeline.acquisition.refusals import Refusal
from pipeline.datasets.description import AnnotationFile, Description
from pipeline.manifest import check_relative

_ORIGIN = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+) (?P<path>\S+), commit (?P<commit>[0-9a-f]{7,40})")


@dataclass(frozen=True)
class Result:
    """What became of one annotation file.

    Args:
        state: `here`, `fetched`, `optional` (missing, and not needed) or `failed`.
        message: what to do about it, or which version it is.
    """

    name: str
    state: str
    message: str = ""


def public_url(file: AnnotationFile) -> str | None:
    """Where the file is published: the raw file of the commit that its origin names; None if it names none."""
    match = _ORIGIN.fullmatch(file.origin)
    if match is None:
        return None
    return "https://raw.githubusercontent.com/{repository}/{commit}/{path}".format(**match.groupdict())


def collect(described: Description, folder: Path, origin: str | None, client: Client) -> list[Result]:
    """Bring every file of a description into `folder`; a file already there with a known checksum is left alone.

    Args:
        origin: a folder, a URL under which the files have their names, or None for their public sources.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_one(file, folder, origin, client) for file in described.files]


def _one(file: AnnotationFile, folder: Path, origin: str | None, client: Client) -> Result:
    target = folder / check_relative(file.name)
    if target.is_file() and _version(file, target):
        return Result(file.name, "here", _version(file, target))
    partial = folder / f".{Path(file.name).name}.download"
    try:
        if origin is None or origin.lower().startswith(("http://", "https://")):
            url = f"{origin.rstrip('/')}/{file.name}" if origin else public_url(file)
            if url is None:
                return _missing(file, f"not fetched by this command; get it from {file.origin} and put it at {target}")
            client.fetch(url, partial)
            words = f"from {url}"
        else:
            shutil.copyfile(Path(origin) / file.name, partial)
            words = f"from {origin}"
        version = _version(file, partial)
        if not version:
            found = hashlib.sha256(partial.read_bytes()).hexdigest()
            return Result(file.name, "failed", f"{words}: SHA-256 is {found}, expected {file.sha256}; not kept")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        return Result(file.name, "fetched", f"{version}, {words}")
    except Refusal as refusal:
        return _missing(file, f"{refusal}; by hand: {url}, to be put at {target}")
    except OSError as error:
        disk.check_error(error, partial)
        return _missing(file, f"{origin}: {error.strerror or error}")
    finally:
        partial.unlink(missing_ok=True)


def _missing(file: AnnotationFile, why: str) -> Result:
    return Result(file.name, "failed" if file.required else "optional", why)


def _version(file: AnnotationFile, path: Path) -> str:
    """`published`, the note of a known variant, `unchecked` where no checksum is published; `` for anything else."""
    if file.sha256 is None:
        return "unchecked"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return "published" if digest == file.sha256 else file.variants.get(digest, "")
