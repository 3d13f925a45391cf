"""The acquire stage, killed: what it leaves is what a run left alone leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.acquisition.command import Run, clip
from tests.pipeline.acquisition.server import MisbehavingServer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def server(video):
    with MisbehavingServer(video.parent) as running:
        yield running


@pytest.mark.parametrize("moment", ["before the rename", "after the rename", "after the download"])
def test_dying_at_the_worst_moments_it_ends_the_same(server, tmp_path, monkeypatch, moment):
    clips = [clip(1, 0.5, "-a"), clip(1, 1.5, "-b")]
    ends = []
    for name in ("calm", "dying"):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, clips)
        command = ("--source", "http", "--from", f"{server.url}/ok/v.mp4?{name}={{source_id}}", "--holds", "videos")
        if name == "dying":
            where = {
                "before the rename": "pipeline.acquisition.shelf.Shelf.put",
                "after the rename": "pipeline.acquisition.ledger.Ledger._append",
                "after the download": "pipeline.acquisition.collect.Collector._make_all",
            }[moment]
            with monkeypatch.context() as patch:
                patch.setattr(where, _die)
                with pytest.raises(SystemExit):
                    run(*command)
        assert run(*command) == 0
        ends.append((run.files(), run.receipt()["counts"], [run.attempts()[one.id] for one in clips]))
    assert ends[0] == ends[1]
    assert sum("dying" in path for path in server.gets()) == 1  # the download was not repeated


def _die(*arguments: object) -> None:
    if arguments[-1]:  # not when there is nothing to append
        raise KeyboardInterrupt


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_at_random_moments_it_ends_the_same(server, tmp_path, kills):
    """kill -9 again and again; the final files, records and outcomes equal those of a run left alone."""
    clips = [clip(number, 0.3 * part, f"-{number}-{part}") for number in range(3) for part in range(2)]
    clips += [clip(3), clip(4)]
    ways = {0: "ok", 1: "cut-1", 2: "flaky-1", 3: "404", 4: "wrong"}

    def prepare(name):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, clips)
        lines = [f"-{number:010d} {server.url}/{how}/v.mp4?{name}{number}" for number, how in ways.items()]
        (run.folder / "list").write_text("\n".join(lines))
        return run, ("--source", "http", "--from", run.folder / "list", "--holds", "videos")

    calm, command = prepare("calm")
    started = time.monotonic()
    assert _process(calm, command).wait() == 0
    whole_s = time.monotonic() - started
    killed, command = prepare("killed")
    chance = random.Random(kills)
    died = 0
    for _ in range(kills):
        process = _process(killed, command)
        try:
            process.wait(whole_s * chance.uniform(0.2, 0.8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            died += 1
    assert died  # else nothing was tested
    assert _process(killed, command).wait() == 0
    assert killed.files() == calm.files()
    assert killed.receipt()["counts"] == calm.receipt()["counts"]
    assert killed.receipt()["counts"]["outcomes"] == {"ok": 6, "absent": 1, "not-media": 1}
    assert not (killed.media / ".partial").exists()


def _process(run: Run, command: tuple) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.acquire", *run.arguments(*command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
