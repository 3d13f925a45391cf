"""Manifests read in parts: the same answers as the whole, from the row groups that are needed, and no stale digest."""

import dataclasses
import tracemalloc

import pyarrow.parquet as pq
import pytest

from pipeline import manifest_file
from pipeline.manifest import Clip, Manifest, ManifestError
from pipeline.manifest_file import ManifestFile
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(manifest_file, "PART_CLIPS", 4)


@pytest.fixture
def saved(tmp_path, small_parts):
    made = factory.manifest(10, durations=(10.0, 8.0))
    made.save(tmp_path / "m.parquet")
    return made, tmp_path / "m.parquet"


def test_it_answers_as_the_whole_manifest_does(saved):
    made, path = saved
    file = ManifestFile(path)
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    assert (file.dataset, file.classes, file.facts, len(file)) == (made.dataset, made.classes, made.facts, 10)
    assert (file.digest, tuple(file.ids), file.durations) == (made.digest, made.ids, made.durations)
    assert [file.media_digest(count) for count in (0, 3, 10)] == [made.media_digest(count) for count in (0, 3, 10)]
    assert file.shard(1, 2, 4) == made.shard(1, 2, 4)
    for rows in (range(10), range(4), range(3, 9), range(5, 6), range(10, 10)):
        assert file.part(rows).clips == made.clips[rows.start : rows.stop]


def test_a_store_planned_from_it_is_that_of_the_whole_manifest(saved, tmp_path):
    made, path = saved
    spec = factory.spec(count=None)
    whole = FeatureStore.create(tmp_path / "whole", made, [spec], job_clips=4)
    parts = FeatureStore.create(tmp_path / "parts", ManifestFile(path), [spec], job_clips=4)
    assert parts.facts == whole.facts
    assert parts.ids == whole.ids
    assert parts.plan(spec.key) == whole.plan(spec.key)


def test_only_the_row_groups_that_hold_the_rows_are_read(saved, monkeypatch):
    _, path = saved
    file = ManifestFile(path)
    read = []
    real = file._file.read_row_groups

    def watched(groups, **options):
        read.append(list(groups))
        return real(groups, **options)

    monkeypatch.setattr(file._file, "read_row_groups", watched)
    file.part(range(5, 7))
    assert read == [[1]]


def test_clips_changed_without_their_digests_are_refused_by_the_jobs_that_would_use_them(saved):
    _, path = saved
    table = pq.read_table(path)
    ids = table["id"].to_pylist()
    ids[5], ids[6] = ids[6], ids[5]
    changed = table.set_column(0, table.schema.field("id"), [ids])
    pq.write_table(changed, path)  # keeps the metadata, and with it digests of what is no longer there
    with pytest.raises(ManifestError, match="clips 4 to 7 were changed"):
        ManifestFile(path).part(range(4, 6))
    assert len(ManifestFile(path).part(range(8, 10))) == 2
    Manifest.load(path).save(path)
    assert ManifestFile(path).part(range(4, 6)).ids == (ids[4], ids[5])


def test_a_file_without_digests_is_read_whole(saved):
    made, path = saved
    table = pq.read_table(path)
    header = b'{"format": 1, "dataset": "ave", "classes": ["Bell", "Dog", "Cat"], "facts": {}}'
    pq.write_table(table.replace_schema_metadata({"clave": header}), path)
    file = ManifestFile(path)
    assert (file.digest, file.media_digest(10)) == (made.digest, made.media_digest(10))
    assert file.part(range(2, 5)).clips == made.clips[2:5]


def test_a_job_does_not_hold_the_other_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_file, "PART_CLIPS", 256)
    one = Clip("a", "a", 0.0, 10.0)
    clips = tuple(dataclasses.replace(one, id=f"{row:08d}", source_id=f"{row:08d}") for row in range(4000))
    Manifest("toy", clips).save(tmp_path / "m.parquet")

    def peak(read) -> int:
        tracemalloc.start()
        read()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    whole = peak(lambda: Manifest.load(tmp_path / "m.parquet"))
    part = peak(lambda: ManifestFile(tmp_path / "m.parquet").part(range(256, 512)))
    assert part < whole / 3
