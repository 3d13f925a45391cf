"""What a result was made from, as short hashes.  No row is read: a store's records know the bytes of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.manifest import Clip
from pipeline.mediafile import MediaError, find
from pipeline.store import FeatureStore


def rows_digest(store: FeatureStore, key: str, clips: Iterable[str]) -> str:
    """Hash of the blocks that hold these clips: another one when a block of theirs was made with other rows.

    The same rows give the same hash, whoever made them, as long as the store has the same job size.

    Raises:
        StoreError: a clip is not in the store, or a record is damaged.
    """
    blocks = sorted({store.row(clip_id) // store.plan(key).block_clips for clip_id in clips})
    return _short([sorted((store.commit(key, block) or {"files": {}})["files"].items()) for block in blocks])


def media_digest(clips: Iterable[Clip], media: Path) -> str:
    """Hash of which clips have a file, and of the files' sizes: their bytes would take hours to read."""
    return _short([[clip.id, _size(clip, media)] for clip in clips])


def _size(clip: Clip, media: Path) -> int | None:
    try:
        return find(clip, media)[0].stat().st_size
    except (MediaError, OSError):
        return None


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
