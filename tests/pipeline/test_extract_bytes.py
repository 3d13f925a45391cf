"""The same bytes whatever the workers, shards and devices, and after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pipeline.extraction
import pipeline.forkserver
import pipeline.workers
from pipeline.extract import main
from pipeline.manifest import Clip
from pipeline.store import FeatureStore
from tests import media_factory as make
from tests.pipeline.extract_factory import flags, many, save, tree
from tests.pipeline.extract_factory import one_load as _one_load  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]


def test_same_bytes_for_any_shard_and_worker_count(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    names = [f"c{number}" for number in range(6)]
    for number, name in enumerate(names):
        make.numbered(media / f"{name}.mp4", duration_s=1.0 + number % 3, rate_hz=16_000 + 8_000 * (number % 2))
    save(tmp_path, [Clip(name, name, duration_s=3.0) for name in names])
    assert main(flags(tmp_path, "whole", "--job-clips", "2")) == 0
    for shard in (2, 0, 1):
        assert main([*flags(tmp_path, "parts", "--job-clips", "2"), "--shard", f"{shard}/3", "--workers", "1"]) == 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")


def test_same_bytes_from_two_devices_at_once(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for number in range(4):
        make.numbered(media / f"c{number}.mp4", duration_s=2.0, rate_hz=16_000)
    save(tmp_path, [Clip(f"c{number}", f"c{number}", duration_s=2.0) for number in range(4)])
    assert main(flags(tmp_path, "one", "--job-clips", "2")) == 0
    receipt = tmp_path / "receipt.json"
    more = ("--job-clips", "2", "--devices", "cpu,cpu", "--receipt", str(receipt))
    assert main(flags(tmp_path, "two", *more)) == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(json.loads(receipt.read_text())["features"]) == 1
    with pytest.raises(SystemExit):
        main(flags(tmp_path, "two", "--devices", "cpu,cpu", "--job", "0"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_rows_transformed_beside_the_network_are_the_same_bytes(tmp_path, monkeypatch, workers):
    """Clips of several sizes, one so large that a row of frames fits no slot of shared memory, and one that is gone."""
    monkeypatch.setattr(pipeline.workers, "_FRAMES_SLOT_BYTES", 20_000)
    media = tmp_path / "media"
    media.mkdir()
    sizes = {"a": (64, 48), "b": (48, 64), "c": (160, 120)}
    for name, (width, height) in sizes.items():
        make.numbered(media / f"{name}.mp4", width=width, height=height, duration_s=3.0)
    save(tmp_path, [Clip(name, name, duration_s=3.0) for name in (*sizes, "gone")])
    encoders = ["--encoders", "clip-tiny,vggish", "--workers", workers]
    assert main([*flags(tmp_path, "workers"), *encoders]) == 0
    assert main([*flags(tmp_path, "device"), *encoders, "--transforms", "device"]) == 0
    assert tree(tmp_path / "workers") == tree(tmp_path / "device")


def test_killed_and_run_again_gives_the_same_bytes(tmp_path):
    many(tmp_path, 40)
    assert main(flags(tmp_path, "whole", "--job-clips", "4")) == 0
    command = [sys.executable, "-m", "pipeline.extract", *flags(tmp_path, "killed", "--job-clips", "4")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = tmp_path / "killed" / "commits"
    deadline_s = time.monotonic() + 120
    while len(list(commits.glob("*/*.json"))) < 2 and time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(commits.glob("*/*.json")))
    assert done >= 2, "killed before anything was committed"
    kept = {path: path.stat().st_mtime_ns for path in commits.glob("*/*.json")}
    assert main(flags(tmp_path, "killed", "--job-clips", "4")) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished blocks were made again"
    FeatureStore.open(tmp_path / "killed").sweep()
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")
