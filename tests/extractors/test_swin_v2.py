"""Swin-V2: the published key format through our loader (timm) against transformers, which is other code."""

import re

import pytest
import torch

from extractors.base import build
from extractors.checkpoint import load_file, load_strictly
from extractors.random_weights import random_state_dict
from extractors.recipes import recipe
from extractors.swin_v2 import MICROSOFT, SwinV2L
from extractors.weights import WeightsError
from tests.extractors.visual import moving_picture, relative_error


class SwinV2Tiny(SwinV2L):
    """The same class over timm's smallest published size, 64 pixels a side."""

    def build_network(self):
        import timm

        return timm.create_model("swinv2_tiny_window8_256", img_size=64, num_classes=0)


def published(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """As the authors save it: `downsample` at the end of a stage, tables and a classifier among the weights."""
    state = {}
    for name, value in random_state_dict(network, seed).items():
        state[re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(3, 3, dtype=torch.int64)
    state["layers.0.blocks.0.attn.relative_coords_table"] = torch.zeros(1, 5, 5, 2)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 9, 9)
    state["head.weight"], state["head.bias"] = torch.zeros(5, 7), torch.zeros(5)
    return state


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published names -> names of `Swinv2Model`."""
    rules = [
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^patch_embed\.norm", "embeddings.norm"),
        (r"^norm\.", "layernorm."),
        (r"^layers", "encoder.layers"),
        (r"attn\.proj", "attention.output.dense"),
        (r"attn\.q_bias", "attention.self.query.bias"),
        (r"attn\.v_bias", "attention.self.value.bias"),
        (r"attn\.logit_scale", "attention.self.logit_scale"),
        (r"attn\.cpb_mlp", "attention.self.continuous_position_bias_mlp"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
    ]
    converted = {}
    for name, value in state.items():
        if re.search(r"relative_|attn_mask|^head", name):
            continue
        if match := re.match(r"layers(.*)attn\.qkv\.weight", name):
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"encoder.layers{match[1]}attention.self.{part}.weight"] = third
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        name = name.replace("norm.norm", "norm")
        converted[name] = value
    return converted


def _compare(encoder: SwinV2L, sizes: dict, path) -> None:
    from transformers import Swinv2Config, Swinv2Model

    state = published(encoder.network)
    torch.save({"model": state, "epoch": 3}, path)
    loaded = load_file(path, MICROSOFT.member)
    load_strictly(encoder.network, encoder.convert(loaded), "published")
    encoder.network.eval()
    reference = Swinv2Model(Swinv2Config(**sizes)).eval()
    lacking = reference.load_state_dict(to_transformers(state), strict=False)
    assert not lacking.unexpected_keys
    assert all("relative_" in name for name in lacking.missing_keys)
    side = sizes["image_size"]
    pictures = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = reference(pixel_values=pictures).last_hidden_state
        found = encoder.forward(pictures)
        swapped = encoder.forward(pictures.flip(1))
        turned = encoder.forward(pictures.transpose(2, 3))
    assert found.shape == wanted.shape
    assert relative_error(found, wanted) <= 1e-5
    assert relative_error(swapped, wanted) > 1e-2  # negative controls
    assert relative_error(turned, wanted) > 1e-2


def test_transformers_agrees(tmp_path):
    tiny = SwinV2Tiny(recipe("swin-v2-l").spec)
    sizes = {
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 8,
        "image_size": 64,
    }
    _compare(tiny, sizes, tmp_path / "tiny.pth")


@pytest.mark.slow
def test_transformers_agrees_in_full_size(tmp_path):
    encoder = build(recipe("swin-v2-l:dgsct2023").spec)
    sizes = {
        "embed_dim": 192,
        "depths": [2, 2, 18, 2],
        "num_heads": [6, 12, 24, 48],
        "window_size": 12,
        "image_size": 192,
    }
    _compare(encoder, sizes, tmp_path / "large.pth")
    assert encoder.parameters == 195_202_932
    media = moving_picture()
    rows = encoder.encode(encoder.prepare(media, encoder.spec.grid.segments(10.0))[:1])
    assert rows.shape == (1, 36, 1536)


def test_keys_of_timm_are_taken_as_they_are():
    tiny = SwinV2Tiny(recipe("swin-v2-l").spec)
    state = random_state_dict(tiny.network, 0)
    assert tiny.convert(state).keys() == state.keys()


def test_a_stage_that_is_missing_is_named():
    tiny = SwinV2Tiny(recipe("swin-v2-l").spec)
    state = {name: value for name, value in published(tiny.network).items() if "layers.1.downsample" not in name}
    with pytest.raises(WeightsError, match=r"3 missing \(layers\.2\.downsample"):
        load_strictly(tiny.network, tiny.convert(state), "published")


def test_dgsct_frames_are_one_based_and_truncated():
    """`linspace(1, N, 10, dtype=int)` with N = 300."""
    spec = recipe("swin-v2-l:dgsct2023").spec
    indices = build(spec).frame_indices(moving_picture(), spec.grid.segments(10.0))
    assert indices.ravel().tolist() == [0, 33, 66, 99, 132, 166, 199, 232, 265, 299]
