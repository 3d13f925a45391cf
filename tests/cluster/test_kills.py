"""Twenty kills at random moments: nothing finished is lost or made twice; the end has the bytes of an unhurt run."""

import hashlib
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

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def tree(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


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
    for _ in range(KILLS):
        process = subprocess.Popen(
            command("killed"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # Loading takes most of a start: the kill comes at random within the work, told by new commits, or before it.
        wanted = len(kept) + chance.randrange(0, 8)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until and len(committed()) < wanted:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = committed()
        assert {path: now.get(path) for path in kept} == kept, "a finished block was lost or made again"
        kept = now
    assert 0 < len(kept) < 120, "the kills missed the work"
    store = FeatureStore.open(tmp_path / "killed")
    store.sweep()
    assert store.verify() == []
    subprocess.run(command("killed"), cwd=ROOT, check=True, capture_output=True)
    assert {path: committed()[path] for path in kept} == kept
    store.sweep()
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")
