"""Manifests: round trip, order, shards, problems; ids that are dangerous as paths."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import Clip, Event, Manifest, ManifestError, check_id, check_relative


def make(count=5, **facts):
    clips = tuple(
        Clip(
            id=f"{row:04d}_--AbC_-{row:04d}",
            source_id=f"--AbC_-{row:04d}",
            start_s=None if row % 2 else row / 3,
            duration_s=10.0 if row % 3 else None,
            split=("train", "val", "test")[row % 3],
            labels=("Bark, loud",) if row % 2 else (),
            events=(Event("Bark, loud", "both", 0.0, 10.0), Event("Ünïcode", "audio", 1.25, 1.25)) if row % 2 else (),
            media="sub folder/ü.mp4" if row == 3 else None,
        )
        for row in range(count)
    )
    return Manifest("toy", clips, ("Bark, loud", "Ünïcode"), facts)


def test_saved_and_loaded_manifests_are_equal_in_everything(tmp_path):
    manifest = make(7, orders={"train": [3, 1]}, note="é", nothing=None)
    manifest.save(tmp_path / "deep" / "m.parquet")
    loaded = Manifest.load(tmp_path / "deep" / "m.parquet")
    assert loaded == manifest
    assert loaded.digest == manifest.digest
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.parquet"]


def test_an_empty_manifest_can_be_saved(tmp_path):
    Manifest("toy", ()).save(tmp_path / "m.parquet")
    assert len(Manifest.load(tmp_path / "m.parquet")) == 0


def test_pandas_reads_the_file_without_this_package(tmp_path):
    pandas = pytest.importorskip("pandas")
    make(6).save(tmp_path / "m.parquet")
    table = pandas.read_parquet(tmp_path / "m.parquet")
    assert list(table.id) == list(make(6).ids)
    assert table.events[1][0]["modality"] == "both"


def test_the_digest_sees_clips_order_and_classes_but_not_facts():
    manifest = make(4)
    others = [
        dataclasses.replace(manifest, clips=manifest.clips[::-1]),
        dataclasses.replace(manifest, classes=manifest.classes[::-1]),
        dataclasses.replace(manifest, clips=(dataclasses.replace(manifest.clips[0], split="x"), *manifest.clips[1:])),
    ]
    assert manifest.digest not in [other.digest for other in others]
    assert manifest.digest == make(4, other="fact").digest


def test_splits_keep_order():
    manifest = make(7)
    assert manifest.splits() == {"train": 3, "val": 2, "test": 2}
    assert [clip.id[:4] for clip in manifest.split("train")] == ["0000", "0003", "0006"]
    assert manifest.split("nowhere") == ()


@pytest.mark.parametrize("content", [b"", b"not a parquet file", b"PAR1 and more PAR1"])
def test_loading_something_else_is_a_manifest_error(tmp_path, content):
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.parquet"):
        Manifest.load(path)


def test_loading_foreign_parquet_nothing_or_a_folder_is_a_manifest_error(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    for name in ("foreign.parquet", "absent.parquet", "."):
        with pytest.raises(ManifestError):
            Manifest.load(tmp_path / name)


@given(st.integers(0, 700), st.integers(1, 9), st.integers(1, 64))
def test_shards_cover_every_row_once_in_whole_blocks(count, shards, block):
    manifest = Manifest("toy", (Clip("a", "a"),) * count)
    ranges = [manifest.shard(index, shards, block) for index in range(shards)]
    assert [row for rows in ranges for row in rows] == list(range(count))
    assert all(rows.start % block == 0 for rows in ranges if len(rows))
    assert all(rows.stop % block == 0 or rows.stop == count for rows in ranges)


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 3), (0, 0)])
def test_a_shard_that_does_not_exist_is_refused(index, count):
    with pytest.raises(ValueError, match="shard"):
        make().shard(index, count)


def test_all_problems_are_listed_at_once():
    bad = Clip("../x", "a/b", -1.0, 0.0, "train", ("Meow",), (Event("Moo", "smell", 5, 4),), "/etc/passwd")
    manifest = Manifest("toy", (bad, Clip("a", "a"), Clip("a", "a")), ("Bark", "Bark"))
    problems = "\n".join(manifest.problems())
    for fragment in (
        "'a' occurs 2 times",
        "'Bark' occurs 2 times",
        "clip id '../x'",
        "source id 'a/b'",
        "'/etc/passwd'",
        "duration 0.0",
        "start -1.0",
        "label 'Meow'",
        "event label 'Moo'",
        "'smell'",
        "5..4",
    ):
        assert fragment in problems
    with pytest.raises(ManifestError) as caught:
        manifest.check()
    assert caught.value.problems == manifest.problems()


@pytest.mark.parametrize("field", ["start_s", "end_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_times_that_are_no_numbers_are_problems(field, value):
    event = dataclasses.replace(Event("Bark", "both", 0.0, 1.0), **{field: value})
    assert Manifest("toy", (Clip("a", "a", events=(event,)),), ("Bark",)).problems()
    clips = (Clip("a", "a", start_s=value), Clip("b", "b", duration_s=value))
    assert len(Manifest("toy", clips).problems()) == 2


def test_a_sound_manifest_has_no_problems_and_long_lists_are_shortened_for_the_eye_only():
    assert make().problems() == []
    assert make().check() == make()
    error = ManifestError("x", [f"problem {number}" for number in range(30)])
    assert len(error.problems) == 30
    assert "and 10 more" in str(error)


@pytest.mark.parametrize("name", ["a", "--HuBNHXu9I", "_x", "a.b-c_9", "0026_VWi2ENBuTbw", "x" * 200])
def test_ids_that_are_file_names(name):
    assert check_id(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a..b", "ä", "a b", "a\n", "x" * 201, None, 3]
)
def test_ids_that_are_not(name):
    with pytest.raises(ValueError, match="not safe"):
        check_id(name)


@pytest.mark.parametrize("path", ["a.mp4", "a b/c ü.mp4", "-x/-y.mp4", "a/..b/c.mp4"])
def test_paths_inside(path):
    assert check_relative(path) == path


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../../b", "a/..", "a\\..\\b", "a\0b"])
def test_paths_outside(path):
    with pytest.raises(ValueError, match="stay inside"):
        check_relative(path)


def test_end_of_a_clip():
    assert Clip("a", "a", 12.5, 10.0).end_s == 22.5
    assert Clip("a", "a", None, 10.0).end_s is None
    assert Clip("a", "a", 1.0, None).end_s is None
