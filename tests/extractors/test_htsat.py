"""HTS-AT against the authors' own numbers (`golden/make_htsat.py`), through a checkpoint file in their format."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.base import NoAudio, build
from extractors.checkpoint import load_file, load_strictly
from extractors.choice import identify, resolve
from extractors.clap_mel import log_mel
from extractors.htsat import HTSAT, RECIPES
from extractors.weights import WeightsError
from pipeline.media import Media
from tests.extractors import published, seeded
from tests.extractors.fake_media import FakeMedia

RATE_HZ = 32_000
BY_NAME = {entry.name: entry for entry in RECIPES}
ROW = np.array([[3.0, 4.0]])

# 44.1 kHz stereo, 10.05 s, of the data that lies beside the project.
CLIP = Path(__file__).parents[3] / "shared" / "data" / "clips" / "WW8Scmk5YsM.wav"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "htsat.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def grid(golden, tmp_path_factory) -> HTSAT:
    """`htsat:dgsct2023` with seeded weights from a Lightning checkpoint file."""
    state = published.state_dict(golden["names"], golden["shapes"])
    path = tmp_path_factory.mktemp("weights") / "HTSAT_AudioSet_Saved_1.ckpt"
    lightning = {"epoch": 1, "state_dict": {f"sed_model.{name}": value for name, value in state.items()}}
    torch.save({**lightning, "best": np.float64(0.471)}, path)
    entry = BY_NAME["htsat:dgsct2023"]
    made = build(entry.spec)
    loaded = resolve(str(path), entry.weights, made.network, made.convert)
    load_strictly(made.network, loaded, entry.name, made.optional_keys)
    assert identify(str(path), entry.weights).startswith("sha256:")
    path.unlink()
    made.network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def media() -> FakeMedia:
    return FakeMedia(seeded.sound(10 * RATE_HZ, RATE_HZ, seed=2), RATE_HZ)


def test_spectrogram_is_the_published_one(golden, grid, media):
    found = grid.prepare(media, ROW)[0, 0, ::50].numpy()
    assert np.abs(found - golden["mel"]).max() < 2e-3  # decibels; torchlibrosa works in float32


def test_tokens_before_the_norm_equal_the_authors(golden, grid, media):
    tokens = grid.encode(grid.prepare(media, ROW))
    assert tokens.shape == (1, 64, 768)
    assert np.abs(tokens[0, :, ::12].numpy() - golden["tokens"]).max() < 2e-5
    folded = tokens[0].unflatten(0, (4, 2, 8)).transpose(0, 1).flatten(0, 2)  # CLAP's order of the same tokens
    assert np.abs(folded[:, ::12].numpy() - golden["tokens"]).max() > 0.1


def test_latent_equals_the_authors(golden, grid, media):
    made = build(BY_NAME["htsat"].spec)
    made.network = grid.network
    latent = made.encode(made.prepare(media, ROW))
    assert latent.shape == (1, 768)
    assert np.abs(latent[0].numpy() - golden["latent"]).max() < 2e-5


def test_a_real_clip_equals_the_authors(golden, grid):
    if not CLIP.is_file():
        pytest.skip(f"{CLIP.name} of the shared data is not here")
    with Media(CLIP) as media:
        tokens = grid.encode(grid.prepare(media, ROW))
    assert np.abs(tokens[0, :, ::24].numpy() - golden["clip_tokens"]).max() < 5e-5


def test_repeating_the_sound_is_not_repeating_the_spectrogram(golden, grid, media):
    """The authors' `infer_mode` repeats frames; DG-SCT repeats samples, which has no seams every 101 frames."""
    second = media.audio()[3 * RATE_HZ : 4 * RATE_HZ]
    short = log_mel(np.pad(second, (0, 9 * RATE_HZ))[None], RATE_HZ, 320, "slaney")[0, :101]
    frames = torch.from_numpy(np.tile(short, (10, 1))[:1001])[None, None]
    assert np.abs(grid.encode(frames)[0, :, ::12].numpy() - golden["tokens"]).max() > 1e-2


def test_bad_audio(grid):
    with pytest.raises(NoAudio):
        grid.prepare(FakeMedia(np.zeros(0), RATE_HZ), ROW)
    silence = grid.prepare(FakeMedia(np.zeros(5), 8_000), ROW)
    assert torch.equal(silence, torch.full((1, 1, 1001, 64), -100.0))


def test_other_layers_are_refused():
    import dataclasses

    with pytest.raises(ValueError, match="neither latent nor stage4"):
        build(dataclasses.replace(BY_NAME["htsat"].spec, layer="stage3"))


def test_an_old_lightning_file_is_read_without_lightning(tmp_path, monkeypatch):
    """Lightning before 1.5 keyed its callbacks by class; the file must open where Lightning is not installed."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    module = types.ModuleType(name)
    module.ModelCheckpoint = callback
    with monkeypatch.context() as patched:
        for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patched.setitem(sys.modules, part, types.ModuleType(part))
        patched.setitem(sys.modules, name, module)
        state = {"sed_model.bn0.bias": torch.ones(2)}
        torch.save({"callbacks": {callback: {"best": np.float64(0.5)}}, "state_dict": state}, tmp_path / "old.ckpt")
    assert load_file(tmp_path / "old.ckpt", "state_dict")["sed_model.bn0.bias"].tolist() == [1.0, 1.0]


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {"sed_model.bn0.bias": torch.ones(2)}, "extra": Runs()}, tmp_path / "evil.ckpt")
    with pytest.raises(WeightsError, match="not a checkpoint that can be read safely"):
        load_file(tmp_path / "evil.ckpt", "state_dict")
    assert not (tmp_path / "ran").exists()
