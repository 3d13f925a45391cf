"""The decoding process answers, dies, hangs and comes back."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from pipeline.access import AccessError
from pipeline.acquisition import checker as checker_module
from pipeline.acquisition.checker import Checker
from pipeline.acquisition.facts import BadMedia, inspect


def test_same_answer_as_in_this_process_and_a_reason_for_bad_files(video, tmp_path):
    with Checker(60) as checker:
        assert checker.inspect(video, 1.0, 2.0) == inspect(video, 1.0, 2.0)
        (tmp_path / "-x.mp4").write_bytes(b"no")
        with pytest.raises(BadMedia, match=r"-x\.mp4"):
            checker.probe(tmp_path / "-x.mp4")
        assert checker.probe(video)[1] == ".mp4"

        os.kill(checker._process.pid, signal.SIGKILL)
        with pytest.raises(BadMedia) as caught:
            checker.inspect(video)
        assert caught.value.outcome == "crashed"
        assert checker.probe(video)[1] == ".mp4"

        os.kill(checker._process.pid, signal.SIGSTOP)
        checker.timeout_s = 0.2
        with pytest.raises(BadMedia) as caught:
            checker.inspect(video)
        assert caught.value.outcome == "timeout"


def test_a_file_that_this_machine_cannot_read_is_no_bad_media(video, monkeypatch):
    program = """
import av, os, sys
from pipeline.acquisition import checker
def refuse(path, **more):
    raise av.error.classes[24](24, os.strerror(24), path)
av.open = refuse
checker._serve()
"""
    environment = os.environ | {"PYTHONPATH": str(checker_module.ROOT)}

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", program], env=environment, **pipes)

    monkeypatch.setattr(checker_module, "_start", start)
    with Checker(60) as checker:
        for ask in (checker.probe, checker.inspect):
            with pytest.raises(AccessError, match=f"Too many open files: '{video}'") as caught:
                ask(video)
            assert caught.value.errno == errno.EMFILE
