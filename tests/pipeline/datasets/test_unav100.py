"""UnAV-100: the published json gives the published counts; spoiled ones give clear errors."""

import json

import numpy as np
import pytest

from pipeline.datasets import description, unav100
from pipeline.manifest import ManifestError
from tests.pipeline.datasets import real

TOY = description.Description("unav100", ("a", "b"))


@pytest.fixture(scope="module")
def manifest():
    return unav100.read(description.load("unav100"), real.folder("unav100"))


def entry(**changes):
    annotation = {"segment": [0, 4.5], "label": "a", "label_id": 0}
    return {"duration": 10, "annotations": [annotation], "subset": "train"} | changes


def read(tmp_path, database, **files):
    (tmp_path / unav100.ANNOTATIONS).write_text(
        database if isinstance(database, str) else json.dumps({"database": database})
    )
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return unav100.read(TOY, tmp_path)


def test_counts(manifest):
    assert {name: len(manifest.split(name)) for name in ("train", "val", "test")} == {
        "train": 6_489,
        "val": 2_134,
        "test": 2_167,
    }
    events = {name: sum(len(clip.events) for clip in manifest.split(name)) for name in ("train", "val", "test")}
    assert events == {"train": 18_123, "val": 6_036, "test": 5_900}
    assert manifest.problems() == []
    assert manifest.facts["split_names"]["val"] == "validation"


def test_times(manifest):
    assert sum(clip.duration_s for clip in manifest.clips) / 3600 == pytest.approx(126.32, abs=0.005)
    lengths = np.array([event.end_s - event.start_s for clip in manifest.clips for event in clip.events])
    assert (lengths < 0.32).sum() == 11
    assert np.median(lengths) == pytest.approx(6.44, abs=0.005)
    assert {clip.start_s for clip in manifest.clips} == {None}


def test_one_video(manifest):
    clip = {clip.id: clip for clip in manifest.clips}["72f67ednp7w"]
    assert (clip.duration_s, clip.split, clip.labels) == (47.68, "train", ("skateboarding",))
    assert (clip.events[0].modality, clip.events[0].start_s, clip.events[0].end_s) == ("both", 13.01, 15.78316)
    assert manifest.classes[37] == "playing base guitar"


def test_offsets_come_from_the_download_table(tmp_path):
    manifest = read(
        tmp_path,
        {"AAAAAAAAAAA": entry(), "BBBBBBBBBBB": entry()},
        download_video="BBBBBBBBBBB,30.5,40.5\nCCCCCCCCCCC,0,10\n",
    )
    assert [clip.start_s for clip in manifest.clips] == [None, 30.5]
    assert manifest.clips[1].end_s == 40.5


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"subset": "val"}, "subset 'val' is none of train, validation, test"),
        (
            {"annotations": [{"segment": [0, 1], "label": "c", "label_id": 0}]},
            "event 0: label 'c' is not in the vocabulary",
        ),
        ({"annotations": [{"segment": [0, 1], "label": "a", "label_id": 1}]}, "'a' has label_id 1, expected 0"),
        ({"annotations": [{"segment": [3, 1], "label": "a", "label_id": 0}]}, "3.0 to 1.0 s is no interval"),
        ({"annotations": [{"segment": [0, 10.5], "label": "a", "label_id": 0}]}, "no interval within 10.0 s"),
        ({"annotations": [{"segment": [0], "label": "a", "label_id": 0}]}, "unreadable entry"),
        ({"annotations": [{}]}, "unreadable entry"),
        ({"duration": "long"}, "unreadable entry"),
    ],
)
def test_a_bad_entry_is_named(tmp_path, changes, fragment):
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, {"AAAAAAAAAAA": entry(**changes), "BBBBBBBBBBB": entry()})
    assert len(caught.value.problems) == 1
    assert "video AAAAAAAAAAA" in caught.value.problems[0]
    assert fragment in caught.value.problems[0]


def test_duplicate_ids_are_found_although_json_readers_hide_them(tmp_path):
    one = json.dumps(entry())
    with pytest.raises(ManifestError, match="'AAAAAAAAAAA' occurs twice"):
        read(tmp_path, f'{{"database": {{"AAAAAAAAAAA": {one}, "AAAAAAAAAAA": {one}}}}}')


@pytest.mark.parametrize("text", ['{"database": {\n"AAAAAAAAAAA": oops}}', "[]", "{}", '{"database": 3}', ""])
def test_json_that_is_something_else(tmp_path, text):
    with pytest.raises(ManifestError, match=r"unav100_annotations\.json:[12]: unreadable"):
        read(tmp_path, text)


def test_bad_ids_and_offsets(tmp_path):
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, {"../../x": entry()}, download_video="AAAAAAAAAAA,1\nAAAAAAAAAAA,5,1\n")
    assert len(caught.value.problems) == 3
    assert any("download_video.csv:2:" in text for text in caught.value.problems)
