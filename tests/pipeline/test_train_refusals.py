"""Files that do not fit each other or the network: what a training says about them."""

import pytest
import torch

from pipeline.manifest import Clip, Event, Manifest
from pipeline.store import FeatureStore
from tests.pipeline import store_factory
from tests.pipeline.store_factory import spec
from tests.pipeline.training_factory import CLASSES, CONFIG, data, place, run  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--visual", "resnet50"], "pipeline.extract --encoders resnet50"),
        (["--visual", "vggish:ave2018", "--audio", "vgg19:ave2018"], "expected one vector per segment"),
        (["--model", "cmran"], "configures model 'avel'"),
        (["--device", "cuda:99"], "CUDA"),
    ],
)
def test_what_does_not_fit_the_files_is_told(place, capsys, flags, words):  # noqa: F811
    if torch.cuda.is_available() and "--device" in flags:
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(SystemExit) as ended:
        run(place, *flags)
    assert ended.value.code == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network: {width: 3}", "no option width"),
        ("optimizer: {name: adam, lr: 1e-3}", "1.0e-3"),
        ("colour: blue", "unknown fields colour"),
        ("base: nowhere.yaml", "no such training configuration"),
    ],
)
def test_wrong_configurations_are_told(place, capsys, change, words):  # noqa: F811
    name = change.split(":")[0]
    kept = [line for line in CONFIG.splitlines() if not line.startswith(name + ":")]
    (place / "avel.yaml").write_text("\n".join([*kept, change]))
    with pytest.raises(SystemExit):
        run(place)
    assert words in capsys.readouterr().err


def test_nan_names_the_clips(tmp_path, capsys):
    data(tmp_path, nan=(2, 4))
    (tmp_path / "avel.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "train-002, train-004" in capsys.readouterr().err


def test_streams_of_other_lengths_than_the_labels_are_told(place, capsys):  # noqa: F811
    made = Manifest.load(place / "manifest.parquet")
    half = spec("vggish", (5,), recipe="half", count=20, window_s=0.5)
    store_factory.fill(FeatureStore.create(place / "store", made, [half]), made, half.key)
    with pytest.raises(SystemExit):
        run(place, "--audio", "vggish:half")
    told = capsys.readouterr().err
    assert f"10 label segments, one a second, but of the streams 'audio' has 20 rows ({half.key})" in told
    assert "one row a second: --audio" in told


def test_a_store_of_other_clips_is_told(place, tmp_path, capsys):  # noqa: F811
    clips = tuple(Clip(f"x{n}", f"x{n}", None, 10.0, "train", ("Bell",)) for n in range(3))
    Manifest("llp", clips, CLASSES).save(place / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(place)
    assert "none of the 3 clips" in capsys.readouterr().err


def test_labels_without_audio_visual_events_are_told(place, capsys):  # noqa: F811
    made = Manifest.load(place / "manifest.parquet")
    clips = tuple(
        Clip(c.id, c.source_id, None, 10.0, c.split, c.labels, (Event(c.labels[0], "audio", 0.0, 3.0),))
        for c in made.clips
    )
    Manifest("llp", clips, CLASSES).save(place / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(place)
    assert "no event of llp is audio-visual" in capsys.readouterr().err
