"""dgsct: frames and sound of a real clip, and black silence for an absent one."""

import json

import numpy as np
import pytest
from PIL import Image

from extractors.base import NoAudio
from pipeline.export import main
from pipeline.manifest import Clip, Event, Manifest
from pipeline.media import Media
from tests import media_factory as make
from tests.pipeline.export_factory import h5
from tests.real_data import FOLDER as DATA

BELL = Event("Bell", "both", 2, 5)


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


def _export(folder, manifest, *more):
    manifest.save(folder / "M.parquet")
    (folder / "media").mkdir(exist_ok=True)
    options = ["--manifest", folder / "M.parquet", "--media", folder / "media", "--format", "dgsct", *more]
    return main([str(option) for option in [*options, "--out", folder / "out"]])


def test_a_sound_that_does_not_decode_is_a_reason_and_not_the_end(tmp_path, monkeypatch):
    def nothing(self, *more):
        raise NoAudio("no sample of the audio stream decodes")

    monkeypatch.setattr(Media, "audio", nothing)
    (tmp_path / "media").mkdir()
    make.numbered(tmp_path / "media" / "a.mp4")
    assert _export(tmp_path, Manifest("ave", (Clip("a", "a", None, 2.0, "train", ("Bell",), (BELL,)),), ("Bell",))) == 0
    (entry,) = json.loads((tmp_path / "out" / "missing.json").read_text())["rows"]
    assert (entry["feature"], entry["outcome"]) == ("wave", "no-audio")
    assert len(list((tmp_path / "out/data/AVE/frames/a").iterdir())) == 10


def test_clips_with_labels_and_no_events_are_llps_and_not_aves(tmp_path):
    clips = tuple(Clip(f"c{i}", f"c{i}", None, 10.0, "train", ("Bell", "Dog")) for i in range(2))
    assert _export(tmp_path, Manifest("llp", clips, ("Bell", "Dog"))) == 0
    assert not (tmp_path / "out/data/AVE").exists()
    assert (tmp_path / "out/data/AVVP/LLP_dataset/wave/c0.npy").exists()


def test_clips_without_labels_are_refused_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        _export(tmp_path, Manifest("folder", (Clip("a", "a", None, 10.0),)))
    assert "1 have no label, the first is a" in capsys.readouterr().err


def test_nothing_but_absent_clips_is_an_export_of_no_rows(tmp_path):
    made = Manifest("ave", (Clip("a", "a", None, 10.0, "train", ("Bell",), (BELL,)),), ("Bell",))
    assert _export(tmp_path, made, "--missing", "renumber") == 0
    assert len(h5(tmp_path / "out/data/AVE/labels.h5")) == 0


def test_a_mistyped_folder_of_media_is_not_a_data_set_of_black_frames(tmp_path, capsys):
    made = Manifest("ave", (Clip("a", "a", None, 10.0, "train", ("Bell",), (BELL,)),), ("Bell",))
    with pytest.raises(SystemExit):
        _export(tmp_path, made, "--media", tmp_path / "nowhere")
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--dtype", "float64"), ("--feature", "visual=vgg19")])
def test_flags_of_features_are_refused(tmp_path, capsys, flags):
    manifest = Manifest("ave", (Clip("a", "a", None, 2.0, "train", ("Bell",), (BELL,)),), ("Bell",))
    with pytest.raises(SystemExit):
        _export(tmp_path, manifest, *flags)
    assert "leave out --feature and --dtype" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
