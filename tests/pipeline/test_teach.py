"""Small teachers: what they learn from, and that their files are ordinary checkpoints."""

import json

import numpy as np
import pytest
import torch

from extractors import clap_tiny, clip_tiny
from extractors.base import build, load
from extractors.nets.clap import split_state
from extractors.recipes import recipe
from pipeline import teach, teaching
from pipeline.manifest import Manifest
from pipeline.run import sha256_of
from tests.pipeline.small_clips import small_clips  # noqa: F401 - a fixture


def test_a_caption_of_two_things_is_true_of_each():
    assert teaching.parts("A photo of rain.") == ["A photo of rain."]
    whole = "This is a sound of bell and drum"
    assert teaching.parts(whole) == [whole, "This is a sound of bell", "This is a sound of drum"]


def test_contrast_with_one_right_answer_is_clips_loss():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = similarity.numpy()
    forward = -np.mean([rows[i, i] - np.log(np.exp(rows[i]).sum()) for i in range(5)])
    backward = -np.mean([rows[i, i] - np.log(np.exp(rows[:, i]).sum()) for i in range(5)])
    assert float(teaching.contrast(similarity, torch.eye(5, dtype=torch.float64))) == pytest.approx(
        (forward + backward) / 2
    )
    both = torch.ones(5, 5, dtype=torch.float64)
    assert float(teaching.contrast(torch.zeros(5, 5, dtype=torch.float64), both)) == pytest.approx(np.log(5))


@pytest.mark.parametrize("name", ["clip-tiny", "clap-tiny"])
def test_published_keys_and_back(name):
    pupil = teaching.Pupil(build(recipe(name).spec), seed=1)
    published = pupil.published()
    if name == "clip-tiny":
        assert "visual.transformer.resblocks.0.attn.in_proj_weight" in published
        back = pupil.encoder.convert(published)
    else:
        assert "module.audio_branch.layers.0.blocks.0.attn.qkv.weight" in published
        audio, text = split_state(published)
        own = pupil.text.state_dict()
        assert all(torch.equal(text[key], own[key]) for key in text)
        assert {key for key in own if "position_ids" not in key and "token_type_ids" not in key} == set(text)
        back = audio
    own = pupil.media.state_dict()
    assert set(back) == set(own)
    assert all(torch.equal(back[key], own[key]) for key in own)
    assert clip_tiny.ARCHITECTURE.embedding == clap_tiny.EMBEDDING == build(recipe(name).spec).spec.shape[0]


def test_teaching_makes_ordinary_checkpoints(tmp_path, small_clips):  # noqa: F811
    folder, manifest = small_clips
    manifest.save(tmp_path / "manifest.parquet")
    flags = ["--manifest", f"{tmp_path}/manifest.parquet", "--media", str(folder), "--steps", "3"]
    assert teach.main([*flags, "--out", f"{tmp_path}/a"]) == 0
    record = json.loads((tmp_path / "a" / "teach.json").read_text())["teachers"]
    for name in ("clip-tiny", "clap-tiny"):
        path = tmp_path / "a" / f"{name}.pt"
        assert record[name]["weights"]["sha256"] == sha256_of(path)
        assert record[name]["training"]["clips"]["refused"] == {manifest.ids[-1]: "absent"}
        encoder = load(name, str(path))
        assert encoder.spec.weights == f"sha256:{sha256_of(path)}"
        assert encoder.encode_text(["A photo of rain."]).shape == (1, 64)
        assert encoder.logit_scale == pytest.approx(record[name]["training"]["scale"], rel=1e-5)
    assert teach.main([*flags, "--encoders", "clip-tiny", "--out", f"{tmp_path}/b"]) == 0
    assert sha256_of(tmp_path / "a" / "clip-tiny.pt") == sha256_of(tmp_path / "b" / "clip-tiny.pt")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--encoders", "vgg19"], "only clip-tiny, clap-tiny are small enough"),
        (["--encoders", "clip-tiny,clip-tiny"], "give each name once"),
        (["--encoders", ","], "give each name once"),
        (["--steps", "0", "--seed", "-1"], "--steps 0: at least 1; --seed -1: 0 to 4294967295"),
    ],
)
def test_wrong_flags_are_told_before_anything_is_read(tmp_path, capsys, flags, says):
    with pytest.raises(SystemExit) as ended:
        teach.main(["--manifest", "none.parquet", "--media", "none", "--out", f"{tmp_path}/out", *flags])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_learned_shows(small_clips):  # noqa: F811
    """A few steps on a few clips already tell their captions apart better than the first weights do."""
    folder, manifest = small_clips
    rows = teaching.prepared(manifest, folder, build(recipe("clip-tiny").spec), 0.5)
    _, record = teaching.teach("clip-tiny", rows, 0, teaching.Lesson(steps=40, batch=8, hold_out=100))
    assert record["loss"][-1] < 0.7 * record["loss"][0]


def test_a_lesson_that_diverges_is_told(small_clips):  # noqa: F811
    folder, manifest = small_clips
    rows = teaching.prepared(manifest, folder, build(recipe("clip-tiny").spec), 0.5)
    with pytest.raises(ValueError, match=r"clip-tiny: the loss is nan in step 2 of 9"):
        teaching.teach("clip-tiny", rows, 0, teaching.Lesson(steps=9, batch=8, lr=1e39))


def test_clips_without_captions_teach_nothing(small_clips):  # noqa: F811
    _, manifest = small_clips
    with pytest.raises(ValueError, match="has no captioned clips"):
        teaching.captioned(Manifest("demo", manifest.clips, manifest.classes), "visual")
