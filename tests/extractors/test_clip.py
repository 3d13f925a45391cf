"""CLIP: OpenAI's key format through our loader, against numbers of OpenAI's code and against open_clip."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from extractors import clip
from extractors.base import build, load
from extractors.clip import ARCHITECTURES, Architecture, tokenize
from extractors.random_weights import random_state_dict
from extractors.recipes import recipe
from extractors.weights import WeightsError
from tests.extractors.visual import moving_picture, random_state, relative_error, shapes_of

TINY = Architecture(
    patch=16, image_width=128, image_layers=2, text_width=64, embedding=32, text_layers=2, image_size=64
)
PROMPTS = ["A photo of a dog.", "a saxophone and a drum"]

# Computed with openai/CLIP@d05afc4, clip/model.py, CLIP(32, 64, 2, 128, 16, 77, 49408, 64, 1, 2), torch 2.14.1, CPU:
# `random_state(dict(sorted(shapes)), seed=3)` with logit_scale 4.0, pictures `randn(2, 3, 64, 64)` of seed 4.
IMAGE = [
    [0.5941938757896423, 0.6627243757247925, -1.439340591430664, 1.4606688022613525, -2.9324541091918945],
    [1.2237861156463623, 0.5847386717796326, -1.4215883016586304, 1.8983333110809326, -3.7935140132904053],
]
TEXT = [
    [0.3466372489929199, -0.21090435981750488, 0.252249151468277, -0.051162101328372955, 0.1670943796634674],
    [0.3838319480419159, -0.15894459187984467, 0.14456984400749207, -0.10548917949199677, 0.25642338395118713],
]
LOGITS = [[7.81118631362915, 2.5248701572418213], [5.295802593231201, 0.43462705612182617]]


def published_shapes(sizes: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an OpenAI file, written out from the format."""
    tokens = (sizes.image_size // sizes.patch) ** 2 + 1
    shapes = {
        "visual.class_embedding": (sizes.image_width,),
        "visual.positional_embedding": (tokens, sizes.image_width),
        "visual.proj": (sizes.image_width, sizes.embedding),
        "visual.conv1.weight": (sizes.image_width, 3, sizes.patch, sizes.patch),
        "positional_embedding": (77, sizes.text_width),
        "token_embedding.weight": (49_408, sizes.text_width),
        "text_projection": (sizes.text_width, sizes.embedding),
        "logit_scale": (),
    }
    norms = {"visual.ln_pre": sizes.image_width, "visual.ln_post": sizes.image_width, "ln_final": sizes.text_width}
    towers = (("visual.", sizes.image_width, sizes.image_layers), ("", sizes.text_width, sizes.text_layers))
    for prefix, width, layers in towers:
        for layer in range(layers):
            block = f"{prefix}transformer.resblocks.{layer}"
            norms |= {f"{block}.ln_1": width, f"{block}.ln_2": width}
            for part, outputs, inputs in (("attn.out_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
                shapes[f"{block}.{part}.weight"] = (outputs * width, inputs * width)
                shapes[f"{block}.{part}.bias"] = (outputs * width,)
            shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
            shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return dict(sorted(shapes.items()))


def published_state(sizes: Architecture, seed: int = 3) -> dict[str, torch.Tensor]:
    return {**random_state(published_shapes(sizes), seed), "logit_scale": torch.tensor(4.0)}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "clip-b32", TINY)
    return TINY


@pytest.fixture
def encoder(tiny, tmp_path):
    torch.save(published_state(tiny), tmp_path / "clip.pt")
    return load("clip-b32", weights=str(tmp_path / "clip.pt"))


def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


def normalised(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def test_numbers_of_the_published_code(encoder):
    with torch.inference_mode():
        image = encoder.forward(pictures())
    text = encoder.encode_text(PROMPTS)
    np.testing.assert_allclose(image[:, :5], IMAGE, rtol=0, atol=1e-5)
    np.testing.assert_allclose(text[:, :5], TEXT, rtol=0, atol=1e-6)
    logits = encoder.logit_scale * normalised(image) @ text.T
    np.testing.assert_allclose(logits, LOGITS, rtol=0, atol=1e-4)
    np.testing.assert_allclose(text.norm(dim=-1), 1, atol=1e-6)


def test_swapped_channels_are_another_feature(encoder):
    """Negative control."""
    with torch.inference_mode():
        swapped = encoder.forward(pictures().flip(1))
    assert np.abs(swapped[:, :5].numpy() - IMAGE).max() > 0.1


def _open_clip(sizes: Architecture, quick: bool = True) -> torch.nn.Module:
    from open_clip.model import CLIP

    image = {"layers": sizes.image_layers, "width": sizes.image_width, "patch_size": sizes.patch}
    text = {"width": sizes.text_width, "heads": sizes.text_width // 64, "layers": sizes.text_layers}
    return CLIP(sizes.embedding, {**image, "image_size": sizes.image_size}, text, quick_gelu=quick).eval()


def _compare_with_open_clip(name: str, sizes: Architecture, path, layers_seed: int = 0) -> None:
    reference = _open_clip(sizes)
    state = random_state_dict(reference, layers_seed)
    assert shapes_of(reference) == published_shapes(sizes)
    reference.load_state_dict(state)
    torch.save(state, path)
    encoder = load(name, weights=str(path))
    inputs = torch.randn(1, 3, sizes.image_size, sizes.image_size, generator=torch.Generator().manual_seed(5))
    ids = tokenize(PROMPTS)
    with torch.inference_mode():
        wanted, found = reference.encode_image(inputs), encoder.forward(inputs)
        assert relative_error(found, wanted) <= 5e-6
        assert (normalised(found) - normalised(wanted)).abs().max() <= 1e-6
        assert (encoder.encode_text(PROMPTS) - normalised(reference.encode_text(ids))).abs().max() <= 1e-6


def test_open_clip_agrees(tiny, tmp_path):
    _compare_with_open_clip("clip-b32", tiny, tmp_path / "clip.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_open_clip_agrees_in_full_size(name, tmp_path):
    _compare_with_open_clip(name, ARCHITECTURES[name], tmp_path / "clip.pt")


def test_the_other_gelu_is_visible(tiny, encoder):
    """Negative control: open_clip's plain variants use the exact GELU."""
    reference = _open_clip(tiny, quick=False)
    reference.load_state_dict(published_state(tiny))
    with torch.inference_mode():
        assert relative_error(reference.encode_image(pictures()), encoder.forward(pictures())) > 1e-3


def test_half_precision_torchscript_archive(tiny, encoder, tmp_path):
    """The files are TorchScript archives of half precision with three constants beside the weights."""
    root = torch.nn.Module()
    state = {name: value.half() for name, value in published_state(tiny).items()}
    constants = {"input_resolution": 64, "context_length": 77, "vocab_size": 49_408}
    for name, value in constants.items():
        root.register_buffer(name, torch.tensor(value))
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
    torch.jit.save(torch.jit.script(root), tmp_path / "archive.pt")
    archived = load("clip-b32", weights=str(tmp_path / "archive.pt"))
    assert next(archived.network.parameters()).dtype == torch.float32
    with torch.inference_mode():
        found, wanted = archived.forward(pictures()), encoder.forward(pictures())
    assert 0 < (normalised(found) - normalised(wanted)).abs().max() < 2e-3


def test_safetensors_of_transformers(encoder, tmp_path):
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in encoder.network.state_dict().items()}
    for tower, tokens in (("text", 77), ("vision", 17)):  # older files carry these
        state[f"{tower}_model.embeddings.position_ids"] = torch.arange(tokens)[None]
    save_file(state, tmp_path / "model.safetensors")
    other = load("clip-b32", weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(other.encode_text(PROMPTS), encoder.encode_text(PROMPTS))


def test_a_missing_key_is_named_and_a_foreign_one_too(tiny, tmp_path):
    state = published_state(tiny)
    del state["visual.transformer.resblocks.1.mlp.c_fc.bias"]
    torch.save({**state, "momentum": torch.zeros(1)}, tmp_path / "torn.pt")
    with pytest.raises(WeightsError, match=r"1 missing \(vision_model.*layers.1.mlp.fc1.bias\).*surplus \(momentum\)"):
        load("clip-b32", weights=str(tmp_path / "torn.pt"))


@pytest.mark.parametrize(
    ("prompt", "ids"),  # from openai/CLIP@d05afc4, simple_tokenizer.py
    [
        ("A photo of a vaccum cleaner.", [320, 1125, 539, 320, 3125, 27119, 15619, 269]),
        ("A photo of a acoustic guiter.", [320, 1125, 539, 320, 10616, 3759, 528, 269]),
        ("A photo of a chicken or a rooster.", [320, 1125, 539, 320, 3717, 541, 320, 30926, 269]),
        ("Baby_laughter & it's 2x LOUD", [1794, 318, 10722, 261, 585, 568, 273, 343, 7464]),
    ],
)
def test_tokens_are_the_published_ones(prompt, ids):
    wanted = [49_406, *ids, 49_407]
    assert tokenize([prompt])[0].tolist() == wanted + [0] * (77 - len(wanted))


def test_prompts_that_are_too_long_are_all_named():
    long = ["a " * 80, "b " * 76]
    with pytest.raises(ValueError, match=r"2 prompts exceed 77 tokens.*a a.*b b"):
        tokenize(["short", *long])


def test_valor_squashes_floats_and_normalises(encoder):
    """`ToTensor`, resize without antialias, mean and deviation: by torchvision, on JPEG pictures 0, 9, 18, ..."""
    media = moving_picture(height=90, width=160)
    valor = build(recipe("clip-l14:valor2023").spec)
    prepared = valor.prepare(media, valor.spec.grid.segments(10.0))
    frame = media.frames(np.array([36]), "jpeg-r8")[0]
    unit = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
    resized = F.resize(unit, [224, 224], antialias=False)
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    torch.testing.assert_close(valor.pictures(prepared[4])[0], F.normalize(resized, mean, deviation), rtol=0, atol=1e-6)
    assert valor.spec.postprocess == ("l2",)
    assert recipe("clip-b16:lsld2023").spec.postprocess == ()


def test_rows_have_length_one_and_no_gradient(encoder):
    rows = encoder.encode(torch.randint(0, 255, (3, 1, 64, 64, 3), dtype=torch.uint8))
    assert rows.shape == (3, 32)
    assert not rows.requires_grad
    np.testing.assert_allclose(rows.norm(dim=-1), 1, atol=1e-6)


def test_scale_of_an_untrained_network_is_the_published_start(tiny):
    assert math.isclose(load("clip-b32", weights="random:0").logit_scale, 1 / 0.07, rel_tol=1e-4)


@pytest.mark.parametrize(("name", "count"), [("clip-b32", 151_277_313), ("clip-b16", 149_620_737)])
def test_parameters_are_the_published_counts(name, count):
    assert build(recipe(name).spec).parameters == count


def test_weights_records_state_the_published_digests():
    assert clip.L14.sha256 in clip.L14.url
    assert {len(record.sha256) for record in (clip.B32, clip.B16, clip.L14)} == {64}
