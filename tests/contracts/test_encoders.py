"""What every encoder and recipe promises, held for each name in the table.

`prepare` needs no weights, so it is tested for every recipe; `encode` once per network, with seeded random weights,
and under `-m slow` for the large ones and for second recipes of the same class.
"""

import dataclasses
import re

import numpy as np
import pytest
import torch

from extractors import programs
from extractors.backends import available, install, is_kept
from extractors.base import ENCODERS, Encoder, NoAudio, NoVideo, build, load, names
from extractors.recipes import recipe
from extractors.spec import FeatureSpec, FrameSampler
from tests.extractors.fake_media import FakeMedia

NAMES = names()
LARGE = 40_000_000


def weightless(name: str) -> Encoder:
    return build(recipe(name).spec)


def network_cases() -> list:
    """One recipe per network and readout; quick are the first of each class, if small and with one picture a row."""
    cases, seen = [], set()
    for name in NAMES:
        spec = recipe(name).spec
        identity = (spec.encoder, spec.layer, spec.postprocess, spec.shape, spec.sampler)
        if identity in seen:
            continue
        pictures = spec.sampler.per_row if spec.sampler else 1
        quick = pictures == 1 and ENCODERS[spec.encoder] not in seen and weightless(name).parameters <= LARGE
        seen |= {identity, ENCODERS[spec.encoder]}
        cases.append(pytest.param(name, marks=[] if quick else [pytest.mark.slow], id=name))
    return cases


def kept_cases() -> list:
    """The same networks; quick are two that take seconds to convert."""
    names = [case.values[0] for case in network_cases()]
    return [name if name in ("clip-tiny", "vggish") else pytest.param(name, marks=pytest.mark.slow) for name in names]


def clip(seconds: float = 10.0, height: int = 48, width: int = 64, seed: int = 0) -> FakeMedia:
    """Moving noise with a rising tone, 10 pictures a second, 22.05 kHz stereo."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * 22_050)) / 22_050
    tone = 0.3 * np.sin(2 * np.pi * (300 + 40 * time_s) * time_s)
    samples = np.stack([tone, 0.5 * tone]) + 0.02 * rng.standard_normal((2, len(time_s)))
    pictures = rng.integers(0, 256, (max(round(seconds * 10), 1), height, width, 3), dtype=np.uint8)
    return FakeMedia(samples, 22_050, pictures, fps=10.0, duration_s=seconds)


def some_segments(encoder: Encoder, duration_s: float = 10.0) -> np.ndarray:
    """Two rows from the start and the last one, or as many as there are."""
    segments = encoder.spec.grid.segments(duration_s)
    return segments[sorted({0, min(1, len(segments) - 1), len(segments) - 1})]


def random_states() -> tuple:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()


# ---- specs and recipes ----------------------------------------------------------------------------------------------


def test_every_encoder_of_the_table_has_a_default_recipe():
    assert {name.split(":")[0] for name in NAMES} == set(ENCODERS)
    assert [encoder for encoder in ENCODERS if encoder not in NAMES] == []


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_described(name):
    entry = recipe(name)
    assert entry.name == name
    assert entry.source
    assert entry.spec.weights == "none"
    assert (entry.spec.modality == "audio") == (entry.spec.sampler is None)
    assert all(choice.strip().endswith(".") for choice in entry.choices)
    if entry.weights is not None:
        record = entry.weights
        assert record.page.startswith("https://")
        assert record.url is None or record.url.startswith("https://")
        assert record.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", record.sha256)
        assert record.sha256 is not None or record.note


@pytest.mark.parametrize("name", NAMES)
def test_every_field_changes_the_key(name):
    spec = recipe(name).spec
    other = {
        "modality": "visual" if spec.modality == "audio" else "audio",
        "preprocess": (*spec.preprocess, "one more step"),
        "postprocess": (*spec.postprocess, "one more step"),
        "grid": dataclasses.replace(spec.grid, hop_s=spec.grid.hop_s / 2),
        "sampler": FrameSampler(per_row=31),
        "shape": (*spec.shape, 3),
        "dtype": "float16",
        "precision": "bf16",
    }
    for field in dataclasses.fields(FeatureSpec):
        changed = dataclasses.replace(spec, **{field.name: other.get(field.name, f"{getattr(spec, field.name)}x")})
        assert changed.key != spec.key, field.name
    assert FeatureSpec.from_dict(spec.to_dict()) == spec


def test_keys_are_distinct():
    assert len({recipe(name).spec.key for name in NAMES}) == len(NAMES)


# ---- prepare --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_prepare_is_the_same_twice_in_blocks_and_draws_nothing(name):
    encoder = weightless(name)
    segments = some_segments(encoder)
    before = random_states()
    whole = encoder.prepare(clip(), segments)
    assert random_states() == before
    assert len(whole) == len(segments)
    assert whole.device.type == "cpu"
    again = torch.cat([encoder.prepare(clip(), block) for block in (segments[:1], segments[1:]) if len(block)])
    assert torch.equal(whole, again)
    assert whole.is_floating_point() is False or whole.isfinite().all()
    other = encoder.prepare(clip(seed=1), segments)
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("name", NAMES)
def test_prepare_is_what_is_collected_and_then_transformed(name):
    encoder = weightless(name)
    segments = some_segments(encoder)
    prepared, collected = encoder.prepare(clip(), segments), encoder.collect(clip(), segments)
    assert len(collected) == len(segments)
    assert torch.equal(encoder.transform(collected), prepared)
    if not encoder.transform_is_exact:
        assert encoder.collect(clip(7.0, 30, 40), segments).shape == collected.shape
    small = weightless(name)
    assert small.source == encoder.source
    assert small.front_end == encoder.front_end


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_transforms_to_the_same_rows(name):
    """Frames to the same bytes; what is computed in floating point within rounding."""
    encoder = weightless(name)
    collected = encoder.collect(clip(), some_segments(encoder))
    expected, found = encoder.transform(collected), encoder.transform(collected.cuda()).cpu()
    assert found.dtype == expected.dtype
    if expected.dtype == torch.uint8 and "rounded" not in str(encoder.spec.preprocess):
        assert torch.equal(found, expected)
    else:
        np.testing.assert_allclose(found.double(), expected.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_odd_clips_give_rows_of_the_same_shape(name):
    """Silence on black, one frame and a third of a second, pictures smaller than the crop, and a minute."""
    encoder = weightless(name)
    wanted = encoder.prepare(clip(), some_segments(encoder)).shape[1:]
    one_frame = FakeMedia(np.ones((1, 320)), 8_000, np.zeros((1, 40, 30, 3), np.uint8))
    black = FakeMedia(np.zeros((2, 160_000)), 16_000, np.zeros((100, 9, 7, 3), np.uint8), fps=10.0)
    for media in (black, clip(0.3), one_frame, clip(60.0)):
        segments = encoder.spec.grid.segments(media.duration_s)[-2:]
        found = encoder.prepare(media, segments)
        assert found.shape == (len(segments), *wanted)
        assert found.is_floating_point() is False or found.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_stream_is_said_so(name):
    encoder = weightless(name)
    with pytest.raises((NoAudio, NoVideo)):
        encoder.prepare(FakeMedia(None, duration_s=10.0), some_segments(encoder))


# ---- encode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", network_cases())
def test_encode(name):
    """Declared shape and dtype, the same bytes twice, no random number, no gradient, no word with the neighbours."""
    encoder = load(name, weights="random:0")
    assert encoder.spec.weights == "random:0"
    first_row = some_segments(encoder)[:1]
    batch = torch.cat([encoder.prepare(clip(seed=seed), first_row) for seed in (0, 1)])
    before = random_states()
    rows = encoder.encode(batch)
    assert random_states() == before
    assert rows.shape == (2, *encoder.spec.shape)
    assert str(rows.dtype) == f"torch.{encoder.spec.dtype}"
    assert not rows.requires_grad
    assert rows.float().isfinite().all()
    assert torch.equal(rows, encoder.encode(batch.clone()))
    neighbour = torch.stack([batch[0], torch.zeros_like(batch[1])])
    assert torch.equal(encoder.encode(neighbour)[0], rows[0])
    assert not torch.equal(rows[0], rows[1])
    # As extraction does it on a GPU: another layout of the weights, the same rows.  Their direction is compared, since
    # AudioCLIP's sound tower with random weights makes a thousandth of a rounding.
    install(encoder, "torch")
    again = encoder.encode(batch)
    assert torch.nn.functional.cosine_similarity(again.flatten(1).float(), rows.flatten(1).float()).min() > 0.9999


@pytest.mark.parametrize("name", kept_cases())
def test_a_kept_network_gives_the_same_bytes(name, tmp_path, monkeypatch):
    """The second run reads what the first converted, without building the network."""
    if "openvino" not in available("cpu"):
        pytest.skip("openvino is not installed")
    monkeypatch.setenv(programs.VARIABLE, str(tmp_path))
    first = load(name, weights="random:0")
    batch = first.prepare(clip(), some_segments(first)[:1]).repeat_interleave(4, dim=0)
    install(first, "openvino")
    rows = first.encode(batch)
    if first.backend.refusal is not None:
        assert not is_kept(first.spec, "openvino")
        pytest.skip(f"does not convert: {first.backend.refusal}")
    second = load(name, weights="random:0", lazily=is_kept(first.spec, "openvino"))
    install(second, "openvino")
    assert torch.equal(second.encode(batch), rows)
    needed = name == "vggish:pca8"  # its whitening is a part of the network that is not converted
    assert ("network" in vars(second)) == needed


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.values[0] for case in network_cases()])
def test_a_compiled_network_gives_equal_rows(name):
    """`torch.compile`, on a GPU if there is one; what does not compile, or is not equal, says so."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load(name, weights="random:0", device=device)
    if "inductor" not in available(device):
        pytest.skip("no compiler")
    batch = encoder.prepare(clip(), some_segments(encoder)).to(device)
    expected = encoder.encode(batch).cpu()
    install(encoder, "inductor")
    found = encoder.encode(batch).cpu()
    assert found.dtype == expected.dtype
    if encoder.backend.refusal is not None:
        pytest.skip(f"does not compile: {encoder.backend.refusal}")
    assert torch.nn.functional.cosine_similarity(found.flatten(1).float(), expected.flatten(1).float()).min() > 0.9999
