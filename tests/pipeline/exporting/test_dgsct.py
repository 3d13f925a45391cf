"""dgsct: frames and sound of a real clip, and black silence for an absent one."""

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.export import main
from pipeline.manifest import Clip, Event, Manifest
from tests.pipeline.export_factory import h5
from tests.real_data import FOLDER as DATA


def test_dgsct_writes_ten_frames_and_ten_seconds_for_every_video(tmp_path, capsys):
    clip = DATA / "clips" / "BjCEufrlXm4.mp4"
    if not clip.exists():
        pytest.skip("the public sample clips are not beside the project")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "BjCEufrlXm4.mp4").symlink_to(clip)
    ids = ["BjCEufrlXm4", "BjCEufrlXm4", "absentvideo"]
    events = [Event(label, "both", 2, 5) for label in ("Bell", "Dog", "Cat")]
    clips = [Clip(f"{i}_{ids[i]}", ids[i], None, 10.0, "train", (e.label,), (e,)) for i, e in enumerate(events)]
    Manifest("ave", tuple(clips), ("Bell", "Dog", "Cat")).save(tmp_path / "M.parquet")
    options = ["--manifest", tmp_path / "M.parquet", "--media", tmp_path / "media", "--format", "dgsct"]
    assert main([str(option) for option in [*options, "--out", tmp_path / "out"]]) == 0
    root = tmp_path / "out/data/AVE"
    assert sorted(path.name for path in (root / "frames").iterdir()) == ["BjCEufrlXm4", "absentvideo"]
    frames = sorted((root / "frames" / "BjCEufrlXm4").iterdir())
    assert [path.name for path in frames] == [f"{number:08d}.jpg" for number in range(1, 11)]
    assert Image.open(frames[0]).size == (320, 240)
    wave = np.load(root / "wave" / "BjCEufrlXm4.npy")
    assert (wave.shape, wave.dtype) == ((320_000,), np.float32)
    assert 0.01 < np.abs(wave).max() <= 1
    assert not np.load(root / "wave" / "absentvideo.npy").any()
    assert (root / "Annotations.txt").read_text().splitlines() == [
        "Category&VideoID&Quality&StartTime&EndTime",
        "Bell&BjCEufrlXm4&good&2&5",
        "Dog&BjCEufrlXm4&good&2&5",
        "Cat&absentvideo&good&2&5",
    ]
    assert h5(root / "mil_labels.h5").argmax(axis=1).tolist() == [0, 1, 2]
    notes = json.loads((tmp_path / "out/export.json").read_text())["notes"]
    assert notes == ["clips without media are black frames and silence"]  # none of ave-h5's peers
    assert main([str(option) for option in [*options, "--out", tmp_path / "less", "--missing", "renumber"]]) == 0
    assert not (tmp_path / "less/data/AVE/wave/absentvideo.npy").exists()
    assert len(h5(tmp_path / "less/data/AVE/labels.h5")) == 2
