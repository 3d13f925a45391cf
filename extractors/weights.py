"""Checkpoints as data: where each comes from and how it is verified.

`extractors.download` fetches them, `extractors.checkpoint` reads them, `extractors.choice` brings them to a network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "CLAVE_WEIGHTS"
_BLOCK_BYTES = 1 << 20


class WeightsError(Exception):
    """A checkpoint cannot be had or must not be trusted; the message says which file and what to do."""


@dataclass(frozen=True)
class Weights:
    """One published checkpoint.

    It leaves out the network: `extractors.recipes` says which recipe uses which record.

    Args:
        name: key in the table.
        file: file name in the cache folder.
        url: direct download address, or None where the publisher offers only a page.
        page: where a person reads about it.
        size_bytes: of the file, None where not published.
        sha256: full digest, or the published prefix (at least 8 hex digits); None where the publisher states none.
        licence_code: SPDX id or `unknown`.
        licence_weights: SPDX id or `unknown`; almost no publisher states one.
        member: key inside the file that holds the state dict, None when the file is the state dict.
        note: one sentence on what is not established.
    """

    name: str
    file: str
    url: str | None
    page: str
    size_bytes: int | None = None
    sha256: str | None = None
    licence_code: str = "unknown"
    licence_weights: str = "unknown"
    member: str | None = None
    note: str = ""


def cache_folder() -> Path:
    """Folder of downloaded checkpoints: $CLAVE_WEIGHTS, else `clave/weights` in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clave" / "weights"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, record: Weights) -> str:
    """SHA-256 of the file, after comparing it and the size with the record.

    Raises:
        WeightsError: size or digest differs from what the publisher states.
    """
    size = path.stat().st_size
    if record.size_bytes is not None and size != record.size_bytes:
        raise WeightsError(f"{path}: {size} bytes, {record.name} has {record.size_bytes}. Delete it and fetch again.")
    digest = sha256_of(path)
    if record.sha256 is not None and not digest.startswith(record.sha256.lower()):
        raise WeightsError(
            f"{path}: SHA-256 {digest[:16]}..., {record.name} starts with {record.sha256[:16]}. "
            "The file is damaged or another one; delete it and fetch again."
        )
    return digest
