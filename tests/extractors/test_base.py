"""Weights that are read when the network is first used: the same ones, or the same error each time."""

import numpy as np
import pytest
import torch

from extractors.base import load
from extractors.clap_tiny import published
from extractors.weights import WeightsError
from tests.extractors.fake_media import FakeMedia


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Both towers of a small CLAP in one file, as laion_clap publishes them."""
    encoder = load("clap-tiny", weights="random:3")
    state = published(encoder.network.state_dict(), encoder._text.get(encoder).state_dict())
    path = tmp_path_factory.mktemp("weights") / "clap.pt"
    torch.save({name: tensor.clone() for name, tensor in state.items()}, path)
    return path


def sound() -> FakeMedia:
    return FakeMedia(np.random.default_rng(0).normal(scale=0.1, size=(1, 48_000)), 48_000, duration_s=1.0)


@pytest.mark.parametrize("first", ["sound", "text"])
def test_whichever_is_used_first_brings_the_weights_of_both(checkpoint, first):
    eager, lazy = (load("clap-tiny", str(checkpoint), lazily=lazily) for lazily in (False, True))
    assert "network" not in vars(lazy)
    assert lazy.spec == eager.spec
    batch = lazy.prepare(sound(), lazy.spec.grid.segments(1.0))
    assert "network" not in vars(lazy), "preparing needs no weights"
    uses = [lambda encoder: encoder.encode(batch), lambda encoder: encoder.encode_text(["a dog barks"])]
    for use in uses if first == "sound" else uses[::-1]:
        assert torch.equal(use(lazy), use(eager))
    assert lazy.device == eager.device
    assert not lazy.network.training


def test_weights_read_within_encode_can_be_trained(checkpoint):
    lazy = load("clap-tiny", str(checkpoint), lazily=True)
    lazy.encode(lazy.prepare(sound(), lazy.spec.grid.segments(1.0)))
    weight = lazy.network.requires_grad_(True).audio_projection.linear1.weight
    weight.sum().backward()
    assert weight.grad.abs().sum() > 0


def test_a_checkpoint_that_does_not_fit_is_refused_every_time(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    del state["module.audio_projection.0.bias"]
    torch.save(state, tmp_path / "x.pt")
    lazy = load("clap-tiny", str(tmp_path / "x.pt"), lazily=True)
    batch = lazy.prepare(sound(), lazy.spec.grid.segments(1.0))
    for _ in range(2):
        with pytest.raises(WeightsError, match="1 missing"):
            lazy.encode(batch)
    with pytest.raises(WeightsError, match="1 missing"):
        load("clap-tiny", str(tmp_path / "x.pt"))
