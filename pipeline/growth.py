"""A store for more clips than it was planned for: rows are only ever added behind those that are there.

Positions are what a store is addressed by, so a manifest fits an existing store if its first clips are the store's, in
the same order and with the same media.  Labels, splits and events may differ: they change no feature.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.blocks import held, part_of
from pipeline.layout import create_arrays, metadata_files, plan
from pipeline.manifest import Manifest
from pipeline.manifest_file import ManifestFile
from pipeline.run import log

if TYPE_CHECKING:
    from pipeline.store import FeatureStore


@contextlib.contextmanager
def planner(path: Path) -> Iterator[None]:
    """Only one process at a time changes what a store is planned for; where there are no locks, all write the same."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def obstacle(store: FeatureStore, manifest: Manifest | ManifestFile) -> str:
    """Why the store cannot become one of this manifest; empty if it can."""
    facts = store.facts
    if facts["dataset"] != manifest.dataset or "media" not in facts:
        return "its clips cannot be compared"
    if len(manifest) < facts["clips"] or manifest.media_digest(facts["clips"]) != facts["media"]:
        return "the manifest's first clips are not the store's clips; clips can only be added at the end"
    for key in store:
        if store.companion(key):
            return f"{key} holds labels, which follow the manifest's labels"
        if plan(manifest, store.spec(key), facts["job_clips"]) != store.plan(key):
            rows = store.plan(key).segments
            return f"{key} was planned for clips of {rows} rows, and an added clip is longer (or of another length)"
    return ""


def grow(store: FeatureStore, manifest: Manifest | ManifestFile) -> dict[str, Any]:
    """Lengthen every array; the block that was the partial last one is not done any more, but what it holds stays, for
    media may be gone since.  The caller writes the new facts.

    When the new clips are there too, the result has the bytes of a store that was planned for all at once.  Killed in
    the middle, the store still names its old manifest, and the next run repeats the steps.
    """
    facts = store.facts
    added = len(manifest) - facts["clips"]
    for key in store:
        size = store.plan(key).block_clips
        if added and facts["clips"] % size:
            record = store.commit_path(key, facts["clips"] // size)
            if record.exists():
                os.replace(record, part_of(record))
        with held(store.path, key) as beside:
            create_arrays(beside / key, manifest, store.spec(key), facts["job_clips"])
            for name in metadata_files(beside, key):
                os.replace(beside / name, store.path / name)
    log(f"{store.path}: planned for {len(manifest)} clips now, {added} more than before")
    return facts | {
        "manifest": manifest.digest,
        "clips": len(manifest),
        "media": manifest.media_digest(len(manifest)),
    }
