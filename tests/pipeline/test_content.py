"""What tells that rows were made again with other values, and what does not."""

import dataclasses
import os
import shutil

from pipeline.content import media_digest, rows_digest
from tests.pipeline import store_factory


def test_the_rows_decide_and_not_who_wrote_them(tmp_path):
    made, entry = store_factory.manifest(10), store_factory.spec()
    first, second, third = (
        store_factory.store(tmp_path / name, made, [entry], absent, job_clips=4)
        for name, absent in (("a", {9}), ("b", {9}), ("c", {8}))
    )
    ids = made.ids
    assert rows_digest(first, entry.key, ids) == rows_digest(second, entry.key, reversed(ids))
    assert rows_digest(first, entry.key, ids) != rows_digest(third, entry.key, ids)
    # Only the blocks of the clips that are asked for count.
    assert rows_digest(first, entry.key, ids[:4]) == rows_digest(third, entry.key, ids[:4])
    for made_by in ("other code", "yet other code"):
        writer = second.writer(entry.key, 0, made_by, {"job": made_by})
        writer.keep(set())
        writer.commit()
        assert rows_digest(first, entry.key, ids) == rows_digest(second, entry.key, ids)


def test_media_are_told_apart_by_which_are_there_and_what_is_in_them(tmp_path):
    clips = [dataclasses.replace(clip, media=None) for clip in store_factory.manifest(3).clips]
    path = tmp_path / f"{clips[0].id}.mp4"
    digests = [media_digest(clips, tmp_path)]
    long = bytes(300_000)
    for content in (b"1", b"2", b"12", b"", long, b"x" + long[1:], long[1:] + b"x", long[:10_000] + b"x" * 290_000):
        path.write_bytes(content)
        digests.append(media_digest(clips, tmp_path))
    assert len(set(digests)) == len(digests)
    shutil.copytree(tmp_path, tmp_path / "other")
    os.utime(tmp_path / "other" / path.name, (1, 1))
    assert media_digest(clips, tmp_path / "other") == digests[-1]
