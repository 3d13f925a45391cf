"""Counts that add up, and the hygiene report."""

import dataclasses

import pytest

from pipeline.acquisition import hygiene, summary
from pipeline.acquisition.facts import Facts
from pipeline.acquisition.ledger import Attempt, Ledger
from pipeline.acquisition.shelf import Shelf
from pipeline.manifest import Clip, Manifest

FINE = Facts(10.0, 10.0, 10.0, 250, 25.0, 320, 240, "h264", "aac", 44_100, 2, -20.0, -3.0, 0.0, 0.0)


def _ok(clip, sha="0", file=None, **facts):
    media = {"file": file or f"{clip}.mp4", "bytes": 1, "sha256": sha, "made": "cut"}
    return Attempt(clip, "x", clip, "ok", media=media | {"facts": dataclasses.replace(FINE, **facts).to_dict()})


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("silent", {"loudness_lufs": -120.0}),
        ("quiet", {"loudness_lufs": -50.0}),
        ("clipped", {"peak_db": 0.0}),
        ("still image", {"still_share": 1.0}),
        ("black", {"black_share": 0.95}),
        ("low frame rate", {"fps": 5.0}),
        ("without audio", {"audio_s": 0.0, "loudness_lufs": None, "peak_db": None}),
        ("without video", {"frames": 0, "video_s": 0.0}),
    ],
)
def test_each_finding_names_its_clip_and_no_other(name, facts):
    findings = hygiene.hygiene([_ok("a", "0"), _ok("b", "1", **facts)])["findings"]
    assert findings.pop(name) == ["b"]
    assert not any(findings.values())


def test_distributions_and_duplicates():
    clips = [
        _ok("a", "0"),
        _ok("b", "0", duration_s=8.0),
        _ok("c", "1"),
        _ok("d", "2", "full/v.mp4"),
        _ok("e", "2", "full/v.mp4"),
    ]
    report = hygiene.hygiene(clips)
    assert report["duplicates"] == [["a", "b"]]  # d and e share an uncut video, which is no duplicate
    assert report["duration_s"] == {"min": 8.0, "median": 10.0, "max": 10.0}
    assert report["resolution"] == {"320x240": 5}
    assert "a = b" in hygiene.describe(report)
    assert hygiene.describe(hygiene.hygiene([])).endswith("no clip to look at")


def test_every_clip_has_one_outcome_and_counts_add_up(tmp_path):
    clips = tuple(
        Clip(name, name, 0.0, 10.0, split, labels)
        for name, split, labels in [
            ("a", "train", ("x",)),
            ("b", "train", ("x", "y")),
            ("c", "test", ("y",)),
            ("d", "test", ()),
            ("e", "test", ("y",)),
        ]
    )
    manifest = Manifest("x", clips, ("x", "y"))
    ledger, shelf = Ledger(tmp_path / "l", "x"), Shelf(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"1")
    for attempt in (_ok("a"), _ok("e"), Attempt("b", "x", "b", "private", "Private video")):
        ledger.add(attempt)
    ledger.add(Attempt("stranger", "x", "s", "ok"))
    found = summary.outcomes(manifest, ledger, shelf)
    # e was delivered, but its file is gone
    assert found == {"a": "ok", "b": "private", "c": "pending", "d": "pending", "e": "absent"}
    table = summary.counts(manifest, found)
    assert sum(table["outcomes"].values()) == table["clips"] == 5
    assert {name: sum(count.values()) for name, count in table["splits"].items()} == {"train": 2, "test": 3}
    assert table["classes"]["y"] == {"pending": 1, "absent": 1, "private": 1}
    text = summary.describe(manifest, found, ledger)
    assert "1 of 5 clips are here" in text
    assert "Private video" in text
