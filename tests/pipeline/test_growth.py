"""Clips added at the end: the store grows, keeps what it has, and ends with the bytes of one made at once."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from pipeline.manifest import Manifest
from pipeline.store import FeatureStore, StoreError
from tests.pipeline import store_factory as factory

SPECS = [factory.spec(), factory.spec("vgg19", (2, 2, 3), modality="visual")]


def tree(path):
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.rglob("*")
        if p.is_file()
    }


def first(made: Manifest, count: int) -> Manifest:
    return dataclasses.replace(made, clips=made.clips[:count])


@pytest.fixture
def whole():
    made = factory.manifest(11)
    # the factory's last clip depends on the number of clips: take it away
    return first(made, 10)


@pytest.mark.parametrize("before", [4, 6, 8])
def test_a_grown_store_has_the_bytes_of_one_made_at_once(tmp_path, whole, before):
    factory.store(tmp_path / "once", whole, SPECS, job_clips=4)
    old = factory.store(tmp_path / "grown", first(whole, before), SPECS, job_clips=4)
    kept = {p: p.stat().st_mtime_ns for p in (old.path / "commits").glob("*/*.json") if int(p.stem) < before // 4}
    assert kept
    grown = FeatureStore.create(tmp_path / "grown", whole, SPECS, job_clips=4)
    for spec in SPECS:
        expected = [range(start, min(start + 4, 10)) for start in range(before // 4 * 4, 10, 4)]
        assert grown.missing(spec.key) == expected  # the partial last block and the new ones, nothing else
        np.testing.assert_array_equal(grown.read(whole.clips[1].id, spec.key), factory.rows_of(spec, 1, 10))
        factory.fill(grown, whole, spec.key)
    assert tree(tmp_path / "grown") == tree(tmp_path / "once")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert grown.verify() == []


def test_killed_before_the_last_step_it_is_repeated(tmp_path, whole):
    factory.store(tmp_path / "grown", first(whole, 6), SPECS, job_clips=4)
    before = (tmp_path / "grown" / "zarr.json").read_bytes()
    FeatureStore.create(tmp_path / "grown", whole, SPECS, job_clips=4)
    after = tree(tmp_path / "grown")
    (tmp_path / "grown" / "zarr.json").write_bytes(before)  # as a process leaves it that dies just before
    FeatureStore.create(tmp_path / "grown", whole, SPECS, job_clips=4)
    assert tree(tmp_path / "grown") == after


def test_other_labels_are_no_other_media(tmp_path, whole):
    factory.store(tmp_path / "store", whole, SPECS, job_clips=4)
    relabelled = dataclasses.replace(
        whole, clips=tuple(dataclasses.replace(clip, labels=("Cat",), split="test") for clip in whole.clips)
    )
    store = FeatureStore.create(tmp_path / "store", relabelled, SPECS, job_clips=4)
    assert [store.missing(spec.key) for spec in SPECS] == [[], []]
    assert store.facts["manifest"] == relabelled.digest


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda clips: clips[1:], "first clips are not"),
        (lambda clips: clips[:9], "first clips are not"),
        (lambda clips: (clips[1], clips[0], *clips[2:]), "first clips are not"),
        (lambda clips: (dataclasses.replace(clips[0], media="other.mp4"), *clips[1:]), "first clips are not"),
        (lambda clips: (*clips, dataclasses.replace(clips[0], id="long", duration_s=30.0)), "an added clip is longer"),
    ],
    ids=["removed", "shorter", "swapped", "other-media", "longer-clip"],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path, whole, change, why):
    ragged = [factory.spec(count=None)]
    factory.store(tmp_path / "store", whole, ragged, job_clips=4)
    before = tree(tmp_path / "store")
    with pytest.raises(StoreError, match=why):
        FeatureStore.create(
            tmp_path / "store", dataclasses.replace(whole, clips=tuple(change(whole.clips))), ragged, job_clips=4
        )
    assert tree(tmp_path / "store") == before


def test_a_store_of_before_this_was_recorded_is_refused(tmp_path, whole):
    factory.store(tmp_path / "store", first(whole, 4), SPECS, job_clips=4)
    path = tmp_path / "store" / "zarr.json"
    content = json.loads(path.read_text())
    del content["attributes"]["clave"]["media"]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="cannot be compared"):
        FeatureStore.create(tmp_path / "store", whole, SPECS, job_clips=4)


def test_what_the_last_block_holds_stays_readable_while_the_new_clips_wait(tmp_path, whole):
    """Whichever features are made next: media of older clips may be gone, and other keys may not be asked for."""
    factory.store(tmp_path / "s", first(whole, 6), SPECS, absent={5}, job_clips=4)
    grown = FeatureStore.create(tmp_path / "s", whole, SPECS[:1], job_clips=4)
    for spec in SPECS:
        np.testing.assert_array_equal(grown.read(whole.ids[4], spec.key), factory.rows_of(spec, 4, 10))
        states = list(grown.outcomes(spec.key).values())
        assert states == ["ok"] * 5 + ["absent"] + ["pending"] * 4
        assert grown.reasons(spec.key) == {whole.ids[5]: f"no file for {whole.ids[5]}"}
    assert grown.verify() == []
    again = FeatureStore.create(tmp_path / "s", dataclasses.replace(whole), SPECS, job_clips=4)
    assert again.verify() == []
    path = grown.path / SPECS[0].key / "values/c/1/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    assert any("block 1" in line for line in grown.verify())
    grown.forget(SPECS[0].key, 1)
    assert grown.outcomes(SPECS[0].key)[whole.ids[4]] == "pending"
