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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


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
        with open(environment["SLURM_CONF"], "a") as conf:  # there are no cgroups here: Slurm itself watches the memory
            conf.write("JobAcctGatherParams=OverMemoryKill\n")
        subprocess.run(["scontrol", "reconfigure"], env=environment, check=True)
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


def command(folder: Path, media: Path, profile: str, *more: str, **changes) -> list[str]:
    """A Snakemake run in `folder` over the tiny folder dataset.

    Args:
        changes: keys of the configuration that replace those here.
    """
    folder.mkdir(exist_ok=True)
    small = {"mem_mb": 2000, "runtime_min": 10}
    entry = {"media": str(media), "encoders": ["vggish"], "weights": "random:0", "export": ["hdf5"]}
    config = {
        "run": "run",
        "job_clips": 1,
        "workers": 0,
        "datasets": {"folder": entry},
        "resources": {"extract": small, "train": small, "default": {"mem_mb": 1000, "runtime_min": 10}},
        **changes,
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


def running(environment: dict[str, str], least: int = 0) -> list[tuple[str, str]]:
    """(job id, node) of the running extract jobs with ids greater than `least`."""
    shown = subprocess.run(
        ["squeue", "-h", "-t", "R", "-o", "%i %N %k"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    jobs = [(line.split()[0], line.split()[1]) for line in shown.splitlines() if "extract" in line]
    return [(job, node) for job, node in jobs if int(job) > least]


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


def accounted(environment: dict[str, str], what: str) -> list[list[str]]:
    """Fields of every job that Slurm has had."""
    shown = subprocess.run(
        ["sacct", "-X", "-n", "-P", "-o", what], env=environment, capture_output=True, text=True, check=True
    ).stdout
    return [line.split("|") for line in shown.splitlines()]


def suspend_one(environment: dict[str, str], folder: Path, least: int) -> str | None:
    """Stop the `extract` of the first job that has one, as a hanging file system would; the job's id."""
    for job, _ in running(environment, least):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                # Not the shell, which has all of the command as one argument.
                extracts = b"\0pipeline.extract\0" in (process / "cmdline").read_bytes()
                inside = f"SLURM_JOB_ID={job}\0".encode() in (process / "environ").read_bytes()
                if extracts and inside and (process / "cwd").readlink() == folder:
                    os.kill(int(process.name), signal.SIGSTOP)
                    return job
            except OSError:  # ended meanwhile, or not ours
                continue
    return None


def test_too_little_memory_and_too_little_time_are_asked_for_again_in_larger_amounts(slurm, media, local, tmp_path):
    before = len(accounted(slurm, "JobID"))
    small = {"mem_mb": 1100, "runtime_min": 10}  # an extract job needs about 1300 MB, with the Snakemake in it
    changes = {"resources": {"extract": small, "default": {"mem_mb": 1000, "runtime_min": 10}}}
    log_path = tmp_path / "log"
    with open(log_path, "w") as log:
        arguments = command(tmp_path, media, "slurm", *QUICK, "--retries", "4", **changes)
        started = subprocess.Popen(arguments, env=slurm, stdout=log, stderr=log)
        try:
            # The first attempts are killed for their memory; one of the next hangs until its time is over.
            wait_for(lambda: "Trying to restart job" in log_path.read_text(), 1200)
            job = wait_for(lambda: suspend_one(slurm, tmp_path, least=before + CLIPS), 1200)
            subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], env=slurm, check=True)
            code = started.wait(timeout=2400)
        finally:
            started.kill()
    assert code == 0, log_path.read_text()[-3000:]
    assert made(tmp_path) == local
    jobs = accounted(slurm, "JobID,State,ReqMem,TimelimitRaw")[before:]
    assert sum(memory == "1100M" and state != "COMPLETED" for _, state, memory, _ in jobs) == CLIPS
    assert [state for number, state, _, _ in jobs if number == job] == ["TIMEOUT"]
    assert {"1650M", "2200M"} <= {memory for _, _, memory, _ in jobs}
    assert {"10", "20", "40"} <= {minutes for _, _, _, minutes in jobs}


def test_a_generic_cluster_with_a_status_command(slurm, media, local, tmp_path):
    status = str(ROOT / "workflows" / "profiles" / "generic" / "status.sh")
    more = ("--cluster-generic-status-cmd", status, "--seconds-between-status-checks", "2", "--latency-wait", "10")
    ran = subprocess.run(
        command(tmp_path, media, "generic", *more), env=slurm, capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert made(tmp_path) == local
    ended = [number for number, state in accounted(slurm, "JobID,State") if state == "COMPLETED"][-1]
    asked = [
        subprocess.run([status, job], env=slurm, capture_output=True, text=True).stdout for job in (ended, "99999")
    ]
    assert asked == ["success\n", "failed\n"]


def prepare_demo(folder: Path, clips: str) -> None:
    """Manifests and clips of a smaller demo than the graph's own `prepare` would make.

    Args:
        clips: as for `--demo-clips`; without clips for the teachers there is no manifest of them.
    """
    parts = [([], "manifest"), (["--splits", "teacher"], "teacher")]
    for splits, name in parts if clips.split(",")[3] != "0" else parts[:1]:
        arguments = ["--dataset", "demo", "--media", "run/demo/media", "--out", f"run/demo/{name}.parquet", *splits]
        subprocess.run(
            [sys.executable, "-m", "pipeline.prepare", *arguments, "--demo-clips", clips],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        )


def small_demo(folder: Path) -> dict:
    """The demo's configuration as it is published, with one training of every kind and with two epochs everywhere.

    Args:
        folder: where the recipes with two epochs are put.
    """
    demo = yaml.safe_load((ROOT / "workflows" / "config" / "demo.yaml").read_text())["datasets"]["demo"]
    folder.mkdir()
    for tuning in demo["finetune"]:
        recipe = ROOT / "workflows" / "config" / "finetune" / f"{tuning['recipe']}.yaml"
        tuning["recipe"] = str(folder / recipe.name)
        (folder / recipe.name).write_text(
            yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"batch": 4, "epochs": 2})
        )
    kinds: dict[tuple, dict] = {}
    for training in demo["train"]:
        kinds.setdefault((training.get("setting"), "labels" in training, training.get("name")), training)
    demo["train"] = list(kinds.values())
    for training in demo["train"]:
        training.pop("seeds", None)
        recipe = ROOT / "workflows" / "config" / "models" / "demo" / f"{training['model']}.yaml"
        training["config"] = str(folder / recipe.name)
        few = {
            "base": os.path.relpath(recipe, folder),
            "settings": {training.get("setting", "supervised"): {"epochs": 2}},
        }
        (folder / recipe.name).write_text(yaml.safe_dump(few))
    return demo


def everything(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset's folder but those that say when and how fast it was made."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run)
        if name.parts[0] in ("logs", "benchmarks", "report.html") or name.name == "checkpoint.pt":
            continue  # a checkpoint holds the curves, and they the seconds of every epoch
        content = path.read_bytes()
        if name.name == "curves.json":
            content = re.sub(rb'"(train|waited)_s": [0-9.e-]+', b"", content)
        found[name.as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def test_the_demo_from_end_to_end_has_the_bytes_of_a_local_run(slurm, tmp_path):
    demo = small_demo(tmp_path / "recipes")
    need = {"mem_mb": 3500, "runtime_min": 30}
    runs = {}
    # Snakemake tells a command how many threads its rule has, fewer where fewer cores are: sums depend on that.
    threads = ("--set-threads", "teach=1", "finetune=1", "train=1")
    for profile, more in (("local", ("--cores", "2")), ("slurm", QUICK)):
        folder = tmp_path / profile
        resources = {"extract": need, "train": need, "default": need}
        changes = {"job_clips": 8, "datasets": {"demo": demo}, "resources": resources}
        arguments = command(folder, tmp_path, profile, *more, *threads, **changes)
        prepare_demo(folder, "6,3,3,12,1")
        before = len(accounted(slurm, "JobID"))
        with open(tmp_path / f"{profile}.log", "w") as log:
            code = subprocess.run(arguments, env=slurm, stdout=log, stderr=log, timeout=1700).returncode
        assert code == 0, (tmp_path / f"{profile}.log").read_text()[-3000:]
        runs[profile] = everything(folder / "run" / "demo")
        assert (folder / "run" / "demo" / "report.html").stat().st_size > 10_000
        submitted = len(accounted(slurm, "JobID")) - before
    assert submitted >= 15, "the jobs did not go through Slurm"
    parts = {name.split("/")[0] for name in runs["local"]}
    assert {"manifest.parquet", "teachers", "features", "labels", "finetune", "train", "scores", "exports"} <= parts
    assert {"effect.json", "release", "receipts"} <= parts
    assert runs["slurm"] == runs["local"]


def test_a_training_and_its_score_are_one_job(slurm, tmp_path):
    scores = {}
    for profile, more in (("local", ("--cores", "1")), ("slurm", QUICK)):
        folder = tmp_path / profile
        streams = {"audio": "vggish", "visual": "clip-tiny", "motion": "clip-tiny"}
        training = {"model": "han", "setting": "weak", "config": str(folder / "han.yaml"), **streams}
        entry = {"encoders": ["clip-tiny", "vggish"], "weights": "random:0", "train": [training]}
        small = {"mem_mb": 2500, "runtime_min": 20}
        arguments = command(
            folder,
            tmp_path,
            profile,
            *more,
            job_clips=64,
            datasets={"demo": entry},
            resources={"extract": small, "train": small, "default": small},
        )
        base = os.path.relpath(ROOT / "workflows/config/models/demo/han.yaml", folder)
        (folder / "han.yaml").write_text(yaml.safe_dump({"base": base, "epochs": 2}))
        prepare_demo(folder, "6,3,3,0,0")
        before = len(accounted(slurm, "JobID"))
        target = "run/demo/scores/han-weak-0.json"
        ran = subprocess.run([*arguments, target], env=slurm, capture_output=True, text=True, timeout=1200)
        assert ran.returncode == 0, ran.stderr[-3000:]
        scores[profile] = (folder / target).read_bytes()
        submitted = len(accounted(slurm, "JobID")) - before
    assert submitted == 2  # extract; train with score
    assert scores["slurm"] == scores["local"]
