"""AudioCLIP against the authors' own numbers (`golden/make_audioclip.py`), on seeded weights in their format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.audioclip import RECIPES, AudioClip, AudioClipVisual
from extractors.base import NoAudio, build
from extractors.checkpoint import load_strictly
from extractors.nets.esresnext import ESResNeXt, FrequencyBSpline, frame
from extractors.random_weights import random_state_dict
from extractors.weights import WeightsError
from pipeline.media import Media
from tests.extractors import published, seeded
from tests.extractors.fake_media import FakeMedia

RATE_HZ = 44_100
ROW = np.array([[0.0, 1.0]])
BY_NAME = {entry.name: entry for entry in RECIPES}
# The prompts of `golden/make_audioclip.py`.
PROMPTS = ("a church bell", "Two men talking, and a DOG barking!")

# 44.1 kHz stereo, 10.05 s, of the data that lies beside the project.
CLIP = Path(__file__).parents[3] / "shared" / "data" / "clips" / "WW8Scmk5YsM.wav"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "audioclip.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def state(golden) -> dict[str, torch.Tensor]:
    return published.state_dict(golden["names"], golden["shapes"])


def loaded(name: str, state: dict[str, torch.Tensor]) -> AudioClip | AudioClipVisual:
    made = build(BY_NAME[name].spec)
    load_strictly(made.network, made.convert(state), name, made.optional_keys)
    made.network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def listener(state) -> AudioClip:
    return loaded("audioclip", state)


@pytest.fixture(scope="module")
def media() -> FakeMedia:
    picture = seeded.picture(240, 320, seed=4)
    return FakeMedia(seeded.sound(RATE_HZ, RATE_HZ, seed=3), RATE_HZ, picture[None].repeat(3, axis=0), fps=3)


def distance(row: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference over the largest value.

    Random weights make a thousandth of a rounding: the authors' numbers are of a processor with AVX2, and one with
    AVX-512 is 2e-4 away from them.
    """
    return float(np.abs(row[0].numpy() - expected).max() / np.abs(expected).max())


def test_spectrogram_is_the_published_one(golden, listener, media):
    decibels = listener.network.audio.spectrogram(listener.prepare(media, ROW))
    assert decibels.shape == (1, 3, 341, 77)
    # As amplitudes: in decibels a rounding of what is 100 dB below the rest shows, and processors round differently.
    found, expected = (10 ** (values / 20) for values in (decibels[0, :, ::20, ::8].numpy(), golden["decibels"]))
    assert np.abs(found - expected).max() < 1e-6 * expected.max()
    assert np.abs(decibels[0, :, ::20, ::8].numpy() - golden["decibels"]).max() < 0.05


def test_sound_equals_the_authors(golden, listener, media):
    row = listener.encode(listener.prepare(media, ROW))
    assert row.shape == (1, 1024)
    assert distance(row, golden["sound"]) < 1e-3


def test_a_real_clip_equals_the_authors(golden, listener):
    if not CLIP.is_file():
        pytest.skip(f"{CLIP.name} of the shared data is not here")
    with Media(CLIP) as media:
        row = listener.encode(listener.prepare(media, np.array([[3.0, 4.0]])))
    assert distance(row, golden["clip_sound"]) < 1e-3


def test_samples_between_minus_one_and_one_are_noticed(golden, listener, media):
    wrong = listener.encode(listener.prepare(media, ROW) / 32_768)
    assert distance(wrong, golden["sound"]) > 0.01


def test_picture_equals_the_authors(golden, state, media):
    looker = loaded("audioclip-visual", state)
    row = looker.encode(looker.prepare(media, ROW))
    assert row.shape == (1, 1024)
    assert np.abs(row[0].numpy() - golden["picture"]).max() < 1e-5
    swapped = looker.encode(looker.prepare(media, ROW).flip(-1))
    assert np.abs(swapped[0].numpy() - golden["picture"]).max() > 1e-3


def test_text_equals_the_authors_and_agrees_with_the_sound(golden, listener, media):
    text = listener.encode_text(PROMPTS)
    expected = golden["text"] / np.linalg.norm(golden["text"], axis=1, keepdims=True)
    assert np.abs(text.numpy() - expected).max() < 1e-6
    sound = torch.nn.functional.normalize(listener.encode(listener.prepare(media, ROW)), dim=-1)
    logits = listener.logit_scale * sound @ text[:1].T
    assert np.abs(logits.numpy() - golden["audio_text"]).max() < 2e-4
    with pytest.raises(ValueError, match="1 prompts exceed 77 tokens"):
        listener.encode_text(["dog", "dog " * 80])


def test_frames_and_padding():
    assert [frame(torch.zeros(1, seconds * RATE_HZ)).shape[1] for seconds in (1, 5, 10)] == [77, 392, 785]
    frames = frame(torch.ones(1, 2_000))
    assert frames.shape == (1, 2, 1654)
    assert frames[0, 0].tolist().index(1.0) == 107  # 215 samples are missing: 107 zeros in front, 108 behind
    assert frames[0, 1].flip(0).tolist().index(1.0) == 108
    assert frame(torch.ones(1, 10)).shape == (1, 1, 1654)


def test_wavelets_start_as_a_fourier_transform():
    time = np.pi * np.linspace(-1, 1, 2048)
    expected = np.exp(-1j * np.arange(1025)[:, None] * time) / np.sqrt(2048)
    real, imaginary = FrequencyBSpline().filters()
    assert np.abs(real.numpy() - expected.real).max() < 1e-5
    assert np.abs(imaginary.numpy() - expected.imag).max() < 1e-5


def test_a_half_order_wavelet_turns_where_its_envelope_is_negative():
    spline = FrequencyBSpline().double()
    spline.m[:], spline.fb[:], spline.fc[:] = 0.5, 1.0, 0.0
    time = np.pi * np.linspace(-1, 1, 2048) + 1e-8
    argument = time / (0.5 + 1e-8)
    expected = np.sqrt((np.sin(argument) / argument).astype(complex)) / np.sqrt(2048)
    real, imaginary = (part[7].numpy() for part in spline.filters())
    assert np.abs(real - expected.real).max() < 1e-9
    assert np.abs(imaginary - expected.imag).max() < 1e-9


def test_seeded_random_networks_stay_finite():
    network = ESResNeXt().eval()
    network.load_state_dict(random_state_dict(network, 0))
    with torch.inference_mode():
        rows = network(torch.stack([torch.zeros(RATE_HZ), torch.full((RATE_HZ,), 32_767.0)]))
    assert torch.isfinite(rows).all()


def test_rows_do_not_depend_on_their_neighbours(listener, media):
    batch = listener.prepare(media, ROW)
    pair = torch.cat([batch, batch.flip(1)])
    alone = listener.encode(batch)
    assert (listener.encode(pair)[:1] - alone).abs().max() < 1e-4
    assert torch.equal(listener.encode(pair), listener.encode(pair))


def test_missing_text_and_missing_audio_are_named(state):
    made = build(BY_NAME["audioclip"].spec)
    load_strictly(made.network, made.convert({k: v for k, v in state.items() if k.startswith(("audio", "logit"))}), "")
    with pytest.raises(WeightsError, match="has no text tower"):
        made.encode_text(["dog"])
    with pytest.raises(NoAudio):
        made.prepare(FakeMedia(np.zeros(0), RATE_HZ), ROW)
    with pytest.raises(WeightsError, match="1 surplus"):
        load_strictly(made.network, made.convert({**state, "depth.conv.weight": torch.zeros(1)}), "audioclip")


def test_checkpoints_are_pinned_by_size_and_digest():
    for entry in RECIPES:
        assert entry.weights.size_bytes == 537_302_068
        assert len(entry.weights.sha256) == 64
