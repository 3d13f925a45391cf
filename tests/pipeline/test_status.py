"""The page of a running workflow: counts, rates and reasons from the files that jobs leave."""

import os
import re

import pytest

from pipeline import status
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory

AUDIO, VISUAL = factory.spec(), factory.spec("vgg19", (2, 2, 3), modality="visual")


@pytest.fixture
def run(tmp_path):
    """Ten clips in jobs of four: audio is done but for its last block, of vgg19 nothing is."""
    made = factory.manifest(10)
    folder = tmp_path / "run" / "ave"
    made.save(folder / "manifest.parquet")
    store = FeatureStore.create(folder / "features", made, [AUDIO, VISUAL], job_clips=4)
    factory.fill(store, made, AUDIO.key, absent={1, 2}, rows=range(8))
    for number, when_s in ((0, 1000.0), (1, 1008.0)):
        os.utime(store.commit_path(AUDIO.key, number), (when_s, when_s))
    (folder / "receipts" / "extract").mkdir(parents=True)
    (folder / "receipts" / "extract" / "0.json").write_text("{}")
    (folder / "logs" / "extract").mkdir(parents=True)
    (folder / "logs" / "extract" / "0.log").write_text("all is well\n")
    (folder / "logs" / "extract" / "1.log").write_text("loading\n3/8 clips, 0.50/s, ETA 0:10\n\n")
    return folder


def test_counts_rate_and_time_left(run):
    (entry,) = status.Watcher(run.parent).datasets()
    visual, audio = entry.keys
    assert (audio.name, audio.committed, audio.blocks, audio.settled) == (AUDIO.key, 2, 3, 8)
    # 4 clips were committed in the 8 seconds after the first commit; 2 are left.
    assert audio.rate == pytest.approx(0.5)
    assert audio.left_s == pytest.approx(4.0)
    assert (visual.committed, visual.rate, visual.left_s) == (0, None, None)
    assert dict(audio.outcomes) == {"ok": 6, "absent": 2}
    assert (entry.receipts, entry.jobs) == (1, 3)
    assert [(job, last) for job, _, last in entry.logs] == [("extract/1", "3/8 clips, 0.50/s, ETA 0:10")]


def test_the_page_says_it_in_words(run, capsys):
    assert status.main(["--run", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "ave: 1 of 3 extract jobs done" in shown
    assert "2 absent: no media file was found" in shown
    assert "0.50" in shown
    assert "8/10" in shown


def test_watching_ends_when_the_last_receipt_is_there_and_sees_new_commits(run, capsys, monkeypatch):
    def finish(_seconds):
        made = factory.manifest(10)
        store = FeatureStore.create(run / "features", made, [AUDIO, VISUAL], job_clips=4)
        for spec in (AUDIO, VISUAL):
            factory.fill(store, made, spec.key)
        for job in (1, 2):
            (run / "receipts" / "extract" / f"{job}.json").write_text("{}")
        (run / "report.html").write_text("")

    monkeypatch.setattr(status.time, "sleep", finish)
    assert status.main(["--run", str(run), "--watch", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("8/10") < shown.index("10/10")
    assert "3 of 3 extract jobs done" in shown


def test_a_clip_without_rows_counts_once_however_many_features_lack_it(run, capsys):
    made = factory.manifest(10)
    store = FeatureStore.create(run / "features", made, [AUDIO, VISUAL], job_clips=4)
    factory.fill(store, made, VISUAL.key, absent={1}, rows=range(4))
    assert status.main(["--run", str(run)]) == 0
    assert re.search(r"^ +2 absent:", capsys.readouterr().out, re.MULTILINE)


def test_jobs_of_every_kind_are_under_way_until_they_have_written_their_last_file(run):
    logs = {
        "prepare": "manifest.parquet", "prepare-teacher": "teacher.parquet", "teach": "teachers/teach.json",
        "pseudolabel": "receipts/pseudolabel.json", "finetune/clip-0": "finetune/clip-0/finetune.json",
        "extract-tuned/clip-0/3": "receipts/extract-tuned/clip-0/3.json",
        "train/avel-weak-0": "train/avel-weak-0/train.json", "score/avel-weak-0": "scores/avel-weak-0.json",
        "export-ave-h5": "receipts/export-ave-h5.json", "effect": "effect.json", "report": "report.html",
        "release": "receipts/release.json", "extract/1": "receipts/extract/1.json",
    }  # fmt: skip
    for log, last in logs.items():
        (run / "logs" / log).parent.mkdir(parents=True, exist_ok=True)
        (run / "logs" / f"{log}.log").write_text("under way\n")
        if (run / last).is_file():
            (run / last).unlink()
        (entry,) = status.Watcher(run).datasets()
        assert log in {name for name, _, _ in entry.logs}
        (run / last).parent.mkdir(parents=True, exist_ok=True)
        (run / last).write_text("{}")
        (entry,) = status.Watcher(run).datasets()
        assert log not in {name for name, _, _ in entry.logs}
    assert entry.other["fine-tunings"] == entry.other["trainings"] == entry.other["tuned extract jobs"] == 1
    assert entry.other["teachers"] == entry.other["pseudo-labels"] == 1
    assert "trainings 1, scores 1, exports 1" in status.show([entry])


def test_watching_does_not_end_with_the_extraction(run):
    for number in (1, 2):
        (run / "receipts" / "extract" / f"{number}.json").write_text("{}")
    (entry,) = status.Watcher(run).datasets()
    assert not entry.finished
    (run / "report.html").write_text("")
    (entry,) = status.Watcher(run).datasets()
    assert entry.finished
    (run / "logs" / "release.log").write_text("")
    (entry,) = status.Watcher(run).datasets()
    assert not entry.finished


def test_a_damaged_record_is_no_commit(run):
    store = FeatureStore.open(run / "features")
    store.commit_path(AUDIO.key, 1).write_text("{")
    (entry,) = status.Watcher(run).datasets()
    assert entry.keys[1].committed == 1


def test_an_empty_folder_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        status.main(["--run", str(tmp_path)])
    assert ended.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err
