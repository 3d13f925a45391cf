"""However a job ends before its time: what is committed stays, nothing else does, and the next one continues."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import pytest

import pipeline.extraction
import pipeline.forkserver
import pipeline.workers
from pipeline.blocks import scratch_path
from pipeline.extract import main
from pipeline.store import FeatureStore
from tests.pipeline.extract_factory import flags, many, tree
from tests.pipeline.extract_factory import one_load as _one_load  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.fixture
def temporary():
    """A folder whose path leaves room for the name of a socket, which pytest's do not."""
    with tempfile.TemporaryDirectory() as path:
        yield path


@pytest.mark.parametrize("fault", ["interrupt", "stop", "worker", "server"])
def test_interrupted_or_robbed_of_a_decoder_it_ends_cleanly(tmp_path, temporary, fault):
    """Ctrl-C keeps what is committed and leaves no process; a decoder or their server killed costs at most a clip."""
    many(tmp_path, 60)
    arguments = [*flags(tmp_path, "store", "--job-clips", "4"), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.extract", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": temporary},
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script is deaf to Ctrl-C, and so would be its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    commits = tmp_path / "store" / "commits"
    deadline_s = time.monotonic() + 120
    while not list(commits.glob("*/*.json")) and time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.02)
    children = _children(process.pid)
    (server,) = [child for child in children if _children(child)]
    decoders = _children(server)
    children += decoders
    victim, blow = {
        "interrupt": (process.pid, signal.SIGINT),
        "stop": (process.pid, signal.SIGTERM),
        "worker": (decoders[0], signal.SIGKILL),
        "server": (server, signal.SIGKILL),
    }[fault]
    os.kill(victim, blow)
    said = process.communicate(timeout=120)[1]
    if fault in ("interrupt", "stop"):
        assert process.returncode == {"interrupt": 130, "stop": 143}[fault]
        assert "the same command continues" in said
        assert not os.listdir(temporary)
        assert "Traceback" not in said
        assert len(list(commits.glob("*/*.json"))) >= 1
    else:
        assert process.returncode == 0, said
        store = FeatureStore.open(tmp_path / "store")
        outcomes = list(store.outcomes(store.key("vggish")).values())
        assert outcomes.count("ok") >= 59
    deadline_s = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children), "a process was left behind"
    assert main([*arguments, "--redo", "crashed"]) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert set(store.outcomes(store.key("vggish")).values()) == {"ok"}


def test_what_a_run_left_that_was_killed_just_after_a_commit_is_removed(tmp_path):
    many(tmp_path, 2)
    assert main(flags(tmp_path)) == 0
    before = tree(tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    left = scratch_path(store.path, store.key("vggish"), 0) / "killed"
    left.mkdir(parents=True)
    (left / "values").write_bytes(b"half")
    assert main(flags(tmp_path)) == 0
    assert tree(tmp_path / "store") == before
    assert not left.parent.exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_clip_that_cannot_be_read_here_and_now_ends_the_job_and_the_next_continues(
    tmp_path, monkeypatch, capsys, workers
):
    many(tmp_path, 18)  # more rows than the network takes at once
    real = av.open

    def refuse(path, *arguments, **more):
        if path.endswith("c17.mp4"):
            raise av.error.PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *arguments, **more)

    arguments = flags(tmp_path, "store", "--job-clips", "2", "--workers", workers)
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", refuse)
        patch.setattr(pipeline.forkserver, "METHOD", "fork")
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert "extract: clip c17 cannot be read: Permission denied" in told
    assert "c17.mp4" in told
    assert "Traceback" not in told
    store = FeatureStore.open(tmp_path / "store")
    assert set(store.outcomes(store.key("vggish")).values()) == {"ok", "pending"}
    assert main(arguments) == 0
    assert set(FeatureStore.open(tmp_path / "store").outcomes(store.key("vggish")).values()) == {"ok"}
