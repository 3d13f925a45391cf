"""The files of a release, their hashes, and the id that follows from them.

R/manifest.parquet  R/specs.json  R/coverage.json  R/licences.json
R/store/            committed blocks only       R/labels/  R/ledger/  R/receipts/   where given
R/README.md         the card                    R/croissant.json
R/SHA256SUMS        every file above            R/release.json   written last
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.checks import damages
from pipeline.folder import copy
from pipeline.layout import metadata_files
from pipeline.run import sha256_of
from pipeline.store import FeatureStore, StoreError

SUMS, RECORD = "SHA256SUMS", "release.json"
#: Files that say what the release holds in other words; they may change with the code that writes them.
DERIVED = ("README.md", "croissant.json")


def copy_store(store: FeatureStore, target: Path, hard_links: bool = False) -> None:
    """Metadata and committed blocks of a sound store; nothing else that lies in the folder.

    Raises:
        StoreError: the store is damaged; lists everything.
    """
    found = [damage for damage in damages(store) if damage.key or damage.block is not None]
    if found:
        raise StoreError("\n  ".join(["the store is damaged, see pipeline.verify:", *map(str, found)]))
    for key in store:
        names = metadata_files(store.path, key)
        for block, _ in store.blocks(key):
            if store.is_done(key, block):
                names += store.commit(key, block)["files"]
                names.append(store.commit_path(key, block).relative_to(store.path).as_posix())
        for name in sorted(names):
            copy(store.path / name, target / name, hard_links)
    for name in ("zarr.json", "commits/zarr.json"):
        copy(store.path / name, target / name, hard_links)


def copy_tree(source: Path, target: Path) -> None:
    """A file or folder of records, without temporary files and links.

    Raises:
        FileNotFoundError: there is nothing to copy.
    """
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    wanted = [path for path in files if not path.name.endswith(".partial") and not path.is_symlink()]
    if not wanted:
        raise FileNotFoundError(f"{source}: {'holds no file' if source.is_dir() else 'no such file or folder'}")
    for path in wanted:
        copy(path, target / (path.name if source.is_file() else path.relative_to(source)))


def hashes(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file except the two that are made from this."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_of(path) for name, path in sorted(names.items()) if name not in (SUMS, RECORD)}


def write_sums(folder: Path, found: dict[str, str]) -> None:
    """The format of `sha256sum`, so that `sha256sum -c SHA256SUMS` checks a release without this package."""
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()))


def read_sums(folder: Path) -> dict[str, str]:
    """The inverse of `write_sums`.

    Raises:
        StoreError: no release there, or a line that is none.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{folder}: no release (no {SUMS}); `python -m pipeline.release build` makes one") from error
    found = {}
    for line in lines:
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise StoreError(f"{folder / SUMS}: not a line of sha256sum: {line[:80]!r}")
        found[name] = digest
    return found


def release_id(dataset: str, found: dict[str, str]) -> str:
    """`clave-<dataset>-` and 16 hex digits over names and hashes of all files that carry data."""
    digest = hashlib.sha256()
    for name, value in sorted(found.items()):
        if name not in DERIVED:
            digest.update(f"{value}  {name}\n".encode())
    return f"clave-{dataset}-{digest.hexdigest()[:16]}"


def total_bytes(folder: Path) -> dict[str, Any]:
    """Files and bytes of the store part."""
    sizes = [path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}
