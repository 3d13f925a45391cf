"""What a result was made from, as short hashes.  No row is read: a store's records know the bytes of its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.manifest import Clip
from pipeline.mediafile import MediaError, find
from pipeline.store import FeatureStore

#: So many pieces of a media file are looked at, of so many bytes; what is shorter is read whole.
_PIECES, _PIECE_BYTES = 8, 8192


def rows_digest(store: FeatureStore, key: str, clips: Iterable[str]) -> str:
    """Hash of the blocks that hold these clips: another one when a block of theirs was made with other rows.

    The same rows give the same hash, whoever made them, as long as the store has the same job size.

    Raises:
        StoreError: a clip is not in the store, or a record is damaged.
    """
    blocks = sorted({store.row(clip_id) // store.plan(key).block_clips for clip_id in clips})
    return _short([sorted((store.commit(key, block) or {"files": {}})["files"].items()) for block in blocks])


def media_digest(clips: Iterable[Clip], media: Path) -> str:
    """Hash of which clips have a file, of the files' sizes and of pieces of each: whole files would take hours.

    Times do not count: the same files, copied to another disk for a resumed run, are the same.
    """
    return _short([[clip.id, _samples(clip, media)] for clip in clips])


def _samples(clip: Clip, media: Path) -> list[Any] | None:
    """Size and hash of equally spaced pieces, first and last bytes included: tables of frame sizes are there."""
    try:
        with open(find(clip, media)[0], "rb") as file:
            size = file.seek(0, os.SEEK_END)
            hashed = hashlib.sha256()
            for number in range(_PIECES):
                file.seek(max(size - _PIECE_BYTES, 0) * number // (_PIECES - 1))
                hashed.update(file.read(_PIECE_BYTES))
    except (MediaError, OSError):
        return None
    return [size, hashed.hexdigest()]


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
