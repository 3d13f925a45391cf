"""Media, manifests and flags for the tests of the extract command."""

import functools
import hashlib
import os
from pathlib import Path

import pytest

from extractors import base
from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore
from tests import media_factory as make


def save(folder: Path, clips) -> Path:
    path = folder / "manifest.parquet"
    Manifest("folder", tuple(clips)).check().save(path)
    return path


def many(folder: Path, count: int) -> None:
    """Media and manifest of clips that are one file of four seconds under many names."""
    (folder / "media").mkdir()
    clip = make.numbered(folder / "clip.mp4", duration_s=4.0)
    names = [f"c{number:02d}" for number in range(count)]
    for name in names:
        os.link(clip, folder / "media" / f"{name}.mp4")
    save(folder, [Clip(name, name, duration_s=4.0) for name in names])


def flags(folder: Path, store: str = "store", *more: str) -> list[str]:
    return [
        "--manifest", str(folder / "manifest.parquet"), "--media", str(folder / "media"),
        "--store", str(folder / store), "--encoders", "vggish", "--weights", "random:0", "--workers", "0", *more,
    ]  # fmt: skip


def tree(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def outcomes(folder: Path) -> dict[str, str]:
    store = FeatureStore.open(folder / "store")
    return store.outcomes(store.key("vggish"))


@pytest.fixture(autouse=True, scope="module")
def one_load():
    """The same encoder for every call of the command in this process: drawing 72 million weights takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "load", functools.cache(base.load))
        yield
