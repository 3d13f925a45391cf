"""The ledger is only appended to, survives a torn line, and remembers the right attempt."""

import json
import subprocess
import sys

import pytest

from pipeline.acquisition.ledger import Attempt, Ledger, Stop, locked

WAITING = """
import sys
from pathlib import Path
from pipeline.acquisition.ledger import locked

with locked([Path(sys.argv[1])], wait=True):
    print("my turn")
"""


def _attempt(clip="a", outcome="removed", dataset="ave", **more):
    return Attempt(clip, dataset, "video", outcome, **more)


def test_records_come_back(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", "ave")
    ledger.add(_attempt(outcome="transient", message="reset", again="later", source="http", versions={"yt-dlp": "1"}))
    ledger.add(_attempt(outcome="ok", media={"file": "a.mp4", "bytes": 1, "sha256": "00"}))
    ledger.stop(Stop("rate-limited", "429", "http", "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00"))
    again = Ledger(tmp_path / "l.jsonl", "ave")
    assert again.attempts == ledger.attempts
    assert again.stops == ledger.stops
    assert again.last("a").outcome == "ok"
    assert again.delivered("a").media["file"] == "a.mp4"
    assert again.last("b") is None


def test_earlier_lines_are_never_touched(tmp_path):
    path = tmp_path / "l.jsonl"
    Ledger(path, "ave").add(_attempt())
    before = path.read_bytes()
    Ledger(path, "ave").add(_attempt(outcome="ok"))
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("keep", [1, 20, 60])
def test_a_torn_last_line_is_skipped_and_the_next_record_is_whole(tmp_path, keep):
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path, "ave")
    ledger.add(_attempt("a"))
    first = path.stat().st_size
    ledger.add(_attempt("b"))
    path.write_bytes(path.read_bytes()[: first + keep])
    torn = Ledger(path, "ave")
    assert (torn.torn, torn.last("b"), torn.last("a").outcome) == (1, None, "removed")
    torn.add(_attempt("b", "ok"))
    assert Ledger(path, "ave").last("b").outcome == "ok"


def test_unknown_lines_are_counted_not_fatal(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"clip": "a", "dataset": "ave", "source_id": "v", "outcome": "made-up"}\n[1]\n\xff\n5\n')
    assert Ledger(path, "ave").torn == 4


def test_other_datasets_share_the_file_but_not_the_clips(tmp_path):
    Ledger(tmp_path / "l.jsonl", "ave").add(_attempt("a", "ok"))
    assert Ledger(tmp_path / "l.jsonl", "llp").last("a") is None


def test_absent_elsewhere_does_not_hide_a_reason(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", "ave")
    ledger.add(_attempt(outcome="private", source="youtube"))
    ledger.add(_attempt(outcome="absent", source="folder"))
    assert ledger.final("a").outcome == "private"
    ledger.add(_attempt("b", "absent"))
    assert ledger.final("b").outcome == "absent"


def test_passwords_do_not_reach_the_file(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", "ave")
    ledger.add(_attempt(message="from http://user:hunter2@host/x", place="http://user:hunter2@host/x"))
    line = json.loads((tmp_path / "l.jsonl").read_text())
    assert line["place"] == "http://host/x"
    assert "hunter2" not in json.dumps(line)


def test_a_second_run_that_waits_has_its_turn_after_the_first(tmp_path):
    with locked([tmp_path / "l"]):
        second = subprocess.Popen(
            [sys.executable, "-c", WAITING, tmp_path / "l"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "waiting for it to end" in second.stderr.readline()
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == "my turn\n"


def test_a_second_run_is_kept_out(tmp_path):
    with locked([tmp_path / "l"]), pytest.raises(ValueError, match="another acquire"), locked([tmp_path / "l"]):
        pass
    with locked([tmp_path / "l"]):
        pass
