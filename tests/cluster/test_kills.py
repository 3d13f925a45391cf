"""Kills at random moments, on a quick and on a slow disk: nothing finished is lost or made twice, and the end has the
bytes of a run that nobody hurt."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore
from tests.media_factory import tone, write_media
from tests.pipeline.extract_factory import tree

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

# Read by every Python that has its folder on the path: a disk that takes its time for each rename and flush.
SLOW_DISK = """
import os, time

def slowed(real):
    def call(*arguments, **named):
        time.sleep(0.03)
        return real(*arguments, **named)
    return call

os.replace, os.rename, os.fsync = slowed(os.replace), slowed(os.rename), slowed(os.fsync)
"""
# Fills a store without networks; its values are those of the factory.
FILL = """
import sys
from tests.pipeline import store_factory as factory
from pipeline.store import FeatureStore

made = factory.manifest(40)
spec = factory.spec(shape=(64, 64))
store = FeatureStore.create(sys.argv[1], made, [spec], job_clips=2)
print("ready", flush=True)
factory.fill(store, made, spec.key)
"""


def slow_disk(folder: Path) -> dict[str, str]:
    """Environment of processes that find the disk slow."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_DISK)
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}


def test_killed_amid_slow_commits_nothing_is_lost(tmp_path):
    slow = slow_disk(tmp_path / "slow")
    quick = {**slow, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FILL, tmp_path / "whole"], env=quick, check=True, capture_output=True)
    commits = tmp_path / "killed" / "commits"

    def committed() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in commits.glob("*/*.json")}

    chance = random.Random(1)
    kept: dict[Path, int] = {}
    unfinished = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", FILL, tmp_path / "killed"], env=slow, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        wanted = len(kept) + chance.randrange(1, 4)
        while process.poll() is None and len(committed()) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.2))  # a commit is five renames and a flush of 0.03 s each
        process.kill()
        process.wait()
        process.stdout.close()
        now = committed()
        assert {path: now.get(path) for path in kept} == kept, "a finished block was lost or made again"
        kept = now
        unfinished += FeatureStore.open(tmp_path / "killed").sweep()
    assert 0 < len(kept) < 20, "the kills missed the work"
    assert unfinished, "no kill came amid a commit"
    assert FeatureStore.open(tmp_path / "killed").verify() == []
    subprocess.run([sys.executable, "-c", FILL, tmp_path / "killed"], env=quick, check=True, capture_output=True)
    assert {path: committed()[path] for path in kept} == kept
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_random_kills(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    sound = write_media(tmp_path / "clip.wav", samples=tone(4.0, 16_000, 1), rate_hz=16_000, audio_codec="pcm_s16le")
    names = [f"c{number:03d}" for number in range(240)]
    for name in names:
        os.link(sound, media / f"{name}.wav")
    Manifest("folder", tuple(Clip(name, name, duration_s=4.0) for name in names)).save(tmp_path / "manifest.parquet")

    def command(store: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pipeline.extract", "--manifest", str(tmp_path / "manifest.parquet")),
            *("--media", str(media), "--store", str(tmp_path / store), "--encoders", "vggish"),
            *("--weights", "random:0", "--workers", "1", "--job-clips", "2"),
        ]

    subprocess.run(command("whole"), cwd=ROOT, check=True, capture_output=True)
    commits = tmp_path / "killed" / "commits"

    def committed() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in commits.glob("*/*.json")}

    chance = random.Random(0)
    kept: dict[Path, int] = {}
    killed = 0
    slow = slow_disk(tmp_path / "slow")
    for kill in range(KILLS):
        process = subprocess.Popen(
            command("killed"),
            cwd=ROOT,
            env=slow if kill % 2 else os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Loading takes most of a start: the kill comes at random within the work, told by new commits, or before it.
        wanted = len(kept) + chance.randrange(0, 8)
        until = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < until and len(committed()) < wanted:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.3))
        if process.poll() is not None:  # this process was stalled for so long that the other one ended
            break
        killed += 1
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = committed()
        assert {path: now.get(path) for path in kept} == kept, "a finished block was lost or made again"
        kept = now
    assert killed >= KILLS // 2, "too few kills came amid the work"
    assert kept, "every kill came before the first commit"
    store = FeatureStore.open(tmp_path / "killed")
    store.sweep()
    assert store.verify() == []
    subprocess.run(command("killed"), cwd=ROOT, check=True, capture_output=True)
    assert {path: committed()[path] for path in kept} == kept
    store.sweep()
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")
