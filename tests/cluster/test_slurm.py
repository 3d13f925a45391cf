"""The graph on a real Slurm of one machine: the same bytes as a local run, also when jobs, nodes and Snakemake die."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from tests.media_factory import tone, write_media

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT.parent / "shared" / "tools" / "slurm-local.sh"
CLIPS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def slurm():
    """Environment of a running Slurm with accounting and two nodes."""
    search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in ("slurmctld", "munged", "slurmdbd", "mariadbd") if not shutil.which(name, path=search)]
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: apt-get install slurm-wlm munge slurmdbd mariadb-server")
    if not SCRIPT.is_file():
        pytest.skip("slurm-local.sh is not beside the project (../shared/tools)")
    state = tempfile.mkdtemp(prefix="sl")  # short: it holds a socket
    environment = {**os.environ, "SLURM_LOCAL_DIR": state, "OMP_NUM_THREADS": "1"}
    start = ["start", "--accounting", "--nodes", "2", "--cpus", "2", "--mem", "8192", "--gpus", "1"]
    subprocess.run([SCRIPT, *start], env=environment, check=True, timeout=180, stdout=subprocess.DEVNULL)
    try:
        shown = subprocess.run([SCRIPT, "env"], env=environment, check=True, capture_output=True, text=True).stdout
        environment["SLURM_CONF"] = re.search(r"SLURM_CONF=(\S+)", shown).group(1)
        environment["PATH"] = f"{state}/bin:{environment['PATH']}"
        yield environment
    finally:
        subprocess.run([SCRIPT, "stop", "--purge"], env=environment, timeout=180, check=False)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for number in range(CLIPS):
        samples = tone(2.0, 16_000, 1, 200.0 * (number + 1))
        write_media(folder / f"c{number}.wav", samples=samples, rate_hz=16_000, audio_codec="pcm_s16le")
    return folder


def command(folder: Path, media: Path, profile: str, *more: str) -> list[str]:
    """A Snakemake run in `folder` over the tiny folder dataset."""
    folder.mkdir(exist_ok=True)
    small = {"mem_mb": 1500, "runtime_min": 10}
    entry = {"media": str(media), "encoders": ["vggish"], "weights": "random:0", "export": ["hdf5"]}
    config = {
        "run": "run",
        "job_clips": 1,
        "workers": 0,
        "datasets": {"folder": entry},
        "resources": {"extract": small, "train": small, "default": {"mem_mb": 800, "runtime_min": 10}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    profile = ROOT / "workflows" / "profiles" / profile
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
        *("--workflow-profile", str(profile), "--configfile", str(folder / "config.yaml"), *more),
    ]


QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")


def made(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that a run leaves apart from logs, benchmarks and the page."""
    run = folder / "run" / "folder"
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("manifest.parquet", "features", "exports", "receipts")
        for path in ([run / part] if (run / part).is_file() else sorted((run / part).rglob("*")))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def local(media, tmp_path_factory):
    """What a run without Slurm makes."""
    folder = tmp_path_factory.mktemp("local")
    ran = subprocess.run(command(folder, media, "local", "--cores", "1"), capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    files = made(folder)
    assert sum("/values/c/" in name for name in files) == CLIPS
    return files


def running(environment: dict[str, str]) -> list[tuple[str, str]]:
    """(job id, node) of the running extract jobs."""
    shown = subprocess.run(
        ["squeue", "-h", "-t", "R", "-o", "%i %N %k"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    return [(line.split()[0], line.split()[1]) for line in shown.splitlines() if "extract" in line]


def wait_for(what, seconds: float = 300.0):
    """The first true result of `what()`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing happened for {seconds} s")


def test_the_bytes_are_those_of_a_local_run_and_the_gpu_is_asked_for(slurm, media, local, tmp_path):
    ran = subprocess.run(
        command(tmp_path, media, "slurm", *QUICK, "--set-resources", "extract:gpu=1"),
        env=slurm,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert made(tmp_path) == local
    shown = subprocess.run(
        ["sacct", "-X", "-n", "-P", "-o", "ReqTRES,State"], env=slurm, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sum("gres/gpu=1" in line and "COMPLETED" in line for line in shown) == CLIPS


def test_cancelled_jobs_and_a_dead_node_are_made_up_for(slurm, media, local, tmp_path):
    with open(tmp_path / "log", "w") as log:
        started = subprocess.Popen(command(tmp_path, media, "slurm", *QUICK), env=slurm, stdout=log, stderr=log)
        try:
            job, _ = wait_for(lambda: running(slurm))[0]
            subprocess.run(["scancel", job], env=slurm, check=True)
            _, node = wait_for(lambda: [entry for entry in running(slurm) if entry[0] != job])[-1]
            subprocess.run([SCRIPT, "kill-node", node], env=slurm, check=True)
            time.sleep(30)  # longer than SlurmdTimeout: its jobs end as NODE_FAIL
            subprocess.run([SCRIPT, "start-node", node], env=slurm, check=True)
            code = started.wait(timeout=1200)
        finally:
            started.kill()
    text = (tmp_path / "log").read_text()
    assert code == 0, text[-3000:]
    assert "Trying to restart job" in text
    assert made(tmp_path) == local


def test_snakemake_killed_and_started_again_loses_and_repeats_nothing(slurm, media, local, tmp_path):
    arguments = command(tmp_path, media, "slurm", *QUICK)
    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(arguments, env=slurm, stdout=log, stderr=log, start_new_session=True)
        commits = tmp_path / "run" / "folder" / "features" / "commits"
        wait_for(lambda: list(commits.glob("*/*.json")), 600)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = {path: path.stat().st_mtime_ns for path in commits.glob("*/*.json")}
    subprocess.run([*arguments, "--unlock"], env=slurm, check=True, capture_output=True, timeout=300)
    again = subprocess.run(arguments, env=slurm, capture_output=True, text=True, timeout=1200)
    assert again.returncode == 0, again.stderr[-3000:]
    assert made(tmp_path) == local
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
