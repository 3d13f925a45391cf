"""What every command writes."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch

from pipeline.run import Progress, command, log, write_torch

#: Prints the product of two matrices on one to four threads, each once.
_PRODUCTS = """
import hashlib, torch
from pipeline.run import command
left, right = (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) for shape in ((32, 12288), (12288, 512)))
with command("test"):
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        print(hashlib.sha256((left @ right).numpy().tobytes()).hexdigest())
"""


def _is_intel():
    path = Path("/proc/cpuinfo")
    return path.exists() and "GenuineIntel" in path.read_text() and torch.backends.mkl.is_available()


@pytest.mark.skipif(
    not _is_intel(), reason="MKL promises the same sums on any number of threads on Intel processors only"
)
def test_sums_do_not_depend_on_the_number_of_threads():
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    run = [sys.executable, "-c", _PRODUCTS]
    found = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout.split()
    assert len(found) == 4
    assert len(set(found)) == 1


@pytest.mark.parametrize("blows", [1, 2])
def test_a_command_stopped_by_the_system_cleans_up_and_says_so(tmp_path, blows):
    """As at the end of a Slurm job's time; a second SIGTERM does not wait for the end of the cleaning."""
    code = f"""
import signal, os, sys, time
from pipeline.run import command
with command("test"):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        for _ in range({blows - 1}):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        print("clean")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    if blows == 2:
        assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, "")
    else:
        assert (ran.returncode, ran.stdout) == (143, "clean\n")
        assert ran.stderr == "test: stopped from outside. What was committed is intact; the same command continues.\n"


def test_an_error_of_the_system_is_told_without_its_number(tmp_path, capsys):
    with pytest.raises(SystemExit), command("test"):
        (tmp_path / "gone").read_bytes()
    assert capsys.readouterr().err == f"test: {tmp_path}/gone: No such file or directory\n"


def test_the_bytes_of_weights_do_not_depend_on_file_or_process(tmp_path, monkeypatch):
    weights = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    for number in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        write_torch(tmp_path / f"{number}.pt", weights)
        torch.save(weights, tmp_path / f"plain-{number}.pt")
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "2.pt").read_bytes()
    assert (tmp_path / "plain-1.pt").read_bytes() != (tmp_path / "plain-2.pt").read_bytes()  # so the name has to go
    read = torch.load(tmp_path / "1.pt", weights_only=True)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert not list(tmp_path.glob("*.partial"))


def test_progress_in_a_terminal_stays_on_one_line_and_messages_take_its_place():
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 40, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        progress = Progress(9, "clips", stream=terminal)
        progress.last_s -= 1
        progress.add(note="vggish 3.15/s, clip-tiny 107/s, waiting for clips 19%")
        log("something happened", terminal)
        progress.close()
    shown = ""
    with contextlib.suppress(OSError):  # the end, on Linux
        while piece := os.read(ours, 10_000):
            shown += piece.decode()
    os.close(ours)
    drawn, message, end = re.split("[\r\n]+", shown.strip())
    assert drawn.startswith("\x1b[K1/9 clips")
    assert len(drawn) == len("\x1b[K") + 39
    assert message == "\x1b[Ksomething happened"
    assert end.endswith("waiting for clips 19%")
