"""The decoding process answers, dies, hangs and comes back."""

import os
import signal

import pytest

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
