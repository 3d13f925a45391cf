"""A folder that appears whole, and files inside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.blocks import StoreError
from pipeline.run import sha256_of

RECORD = "export.json"


@contextlib.contextmanager
def replaced(target: Path, overwrite: bool, record: str = RECORD) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends without an error.

    Args:
        record: file by which an earlier folder of the same kind is known.
    Raises:
        StoreError: `target` is not empty and none of ours, or is ours and `overwrite` is off.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not (target / record).is_file():
            raise StoreError(
                f"{target}: is not empty and was not made by this command (no {record}); choose another --out"
            )
        if not overwrite:
            raise StoreError(f"{target}: was made by an earlier run; --overwrite replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        old = target.with_name(f".{target.name}.{os.getpid()}.old.partial")
        if target.exists():
            os.replace(target, old)
        os.replace(beside, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def save_npy(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy` so that the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    with open(beside, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    os.replace(beside, path)


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as `.npz` so that the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    with open(beside, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(beside, path)


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy(source: Path, target: Path, hard_links: bool = False) -> None:
    """A file under another name; folders in between are made."""
    if source.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if hard_links:
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def describe(folder: Path) -> dict[str, Any]:
    """Number of files, bytes and one SHA-256 over the names and contents of every sub-folder with files."""
    found: dict[str, Any] = {}
    for parent in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
        files = sorted(path for path in parent.iterdir() if path.is_file())
        each = {path.name: sha256_of(path) for path in files}
        digest = hashlib.sha256()
        for entry in each.items():
            digest.update(json.dumps(entry).encode())
        name = parent.relative_to(folder).as_posix()
        size = sum(path.stat().st_size for path in files)
        found[name] = {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}
        if len(files) <= 40:
            found[name]["each"] = each
    return found
