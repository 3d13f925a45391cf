"""Clips that are taken up again, and rows that stay."""

import numpy as np

import pipeline.extraction
import pipeline.forkserver
import pipeline.workers
from pipeline.extract import main
from pipeline.manifest import Clip
from pipeline.store import FeatureStore
from tests import media_factory as make
from tests.pipeline.extract_factory import flags, outcomes, save, tree
from tests.pipeline.extract_factory import one_load as _one_load  # noqa: F401 - a fixture


def test_redo_takes_up_clips_that_arrived_later(tmp_path, capsys):
    media = tmp_path / "media"
    media.mkdir()
    make.numbered(media / "a.mp4")
    save(tmp_path, [Clip("a", "a", duration_s=2.0), Clip("b", "b", duration_s=2.0)])
    assert main(flags(tmp_path)) == 0
    key = FeatureStore.open(tmp_path / "store").key("vggish")
    before = FeatureStore.open(tmp_path / "store").read("a", key)
    make.numbered(media / "b.mp4")
    assert main(flags(tmp_path)) == 0
    assert FeatureStore.open(tmp_path / "store").outcomes(key)["b"] == "absent"
    assert "tried anew only with --redo absent" in capsys.readouterr().err
    assert main(flags(tmp_path, "store", "--redo", "absent")) == 0
    assert "--redo" not in capsys.readouterr().err
    store = FeatureStore.open(tmp_path / "store")
    assert store.outcomes(key) == {"a": "ok", "b": "ok"}
    np.testing.assert_array_equal(store.read("a", key), before)
    assert store.verify() == []


def test_rows_of_a_clip_whose_file_is_gone_stay(tmp_path, monkeypatch, capsys):
    """When files are added, and when the code has changed: media may be deleted once the features are made."""
    media = tmp_path / "media"
    media.mkdir()
    clips = [Clip(name, name, duration_s=2.0) for name in "abc"]
    for name in "ab":
        make.numbered(media / f"{name}.mp4")
    save(tmp_path, clips[:2])
    assert main(flags(tmp_path)) == 0
    (media / "a.mp4").unlink()
    make.numbered(media / "c.mp4")
    save(tmp_path, clips)
    assert main(flags(tmp_path)) == 0
    assert outcomes(tmp_path) == {"a": "ok", "b": "ok", "c": "ok"}
    store = FeatureStore.open(tmp_path / "store")
    key, before = store.key("vggish"), tree(tmp_path / "store")
    monkeypatch.setattr(pipeline.extraction, "code_digest", lambda names: "other code")
    for _ in range(2):  # it is tried again, for the media may come back
        assert main(flags(tmp_path)) == 0
        assert "clip a keeps the rows that it has: its media are gone" in capsys.readouterr().err
        assert outcomes(tmp_path) == {"a": "ok", "b": "ok", "c": "ok"}
        assert list(FeatureStore.open(tmp_path / "store").notes(key)) == ["a"]
        values = f"{key}/values/c/0/0/0"
        assert tree(tmp_path / "store")[values] == before[values]
    make.numbered(media / "a.mp4")
    assert main(flags(tmp_path)) == 0
    capsys.readouterr()
    assert main(flags(tmp_path)) == 0
    assert "making them again" not in capsys.readouterr().err
    store = FeatureStore.open(tmp_path / "store")
    assert store.notes(key) == {}
    assert store.commit(key, 0)["made_by"] == "other code"
    assert store.verify() == []


def test_rows_made_with_another_tail_are_made_again(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    make.numbered(tmp_path / "media" / "a.mp4")
    save(tmp_path, [Clip("a", "a", duration_s=4.0)])
    assert main(flags(tmp_path)) == 0
    assert outcomes(tmp_path) == {"a": "ok"}
    assert main(flags(tmp_path, "store", "--tail", "drop")) == 0
    assert "made with --tail pad" in capsys.readouterr().err
    assert outcomes(tmp_path) == {"a": "too-short"}
    assert main(flags(tmp_path, "store", "--tail", "drop")) == 0
    assert "again" not in capsys.readouterr().err


def test_redo_leaves_clips_with_other_outcomes_alone(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    make.zero_byte(media / "a.mp4")
    save(tmp_path, [Clip(name, name, duration_s=2.0) for name in "ab"])
    assert main(flags(tmp_path)) == 0
    make.numbered(media / "a.mp4")
    make.numbered(media / "b.mp4")
    assert main(flags(tmp_path, "store", "--redo", "absent")) == 0
    assert outcomes(tmp_path) == {"a": "not-media", "b": "ok"}
    store = FeatureStore.open(tmp_path / "store")
    assert list(store.reasons(store.key("vggish"))) == ["a"]
    assert store.verify() == []
