"""HTS-AT as transformers builds it, and the way from its two published key formats.

CLAP's audio tower and the AudioSet tagger of the HTS-AT authors are one architecture: a Swin transformer over a
log-mel spectrogram of 1001 frames, cut into four chunks that are stacked along frequency into a 256 x 256 image.
`transformers` maintains it as `ClapAudioModel`, so only key names are written here.

Source: Chen et al., "HTS-AT", ICASSP 2022; Wu et al., "Large-scale contrastive language-audio pretraining", ICASSP
2023; key formats of LAION-AI/CLAP@1fd4c37 and RetroCirce/HTS-Audio-Transformer@2e29471.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import ClapAudioConfig


@dataclass(frozen=True)
class _Size:
    """Width of the first and of the last stage, blocks and heads per stage, edge of a patch, embedding."""

    width: int
    depths: tuple[int, ...]
    hidden: int
    heads: tuple[int, ...] = (4, 8, 16, 32)
    patch: int = 4
    embedding: int = 512


_SIZES = {
    "tiny": _Size(96, (2, 2, 6, 2), 768),
    "base": _Size(128, (2, 2, 12, 2), 1024),
    "demo": _Size(48, (1, 1), 96, heads=(4, 4), patch=16, embedding=64),  # ours, for clap-tiny
}

#: Network names that a spec's `layer` may begin with -> (size, attentional fusion).
NETWORKS: dict[str, tuple[str, bool]] = {
    "htsat-tiny": ("tiny", False),
    "htsat-tiny-fusion": ("tiny", True),
    "htsat-base": ("base", False),
    "htsat-demo": ("demo", False),
}

# What a published file holds beside the tower: fixed filters, the AudioSet classifier, shifted-window masks.
_LEFTOVERS = re.compile(r"^(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|\.attn_mask$")

# In order; the first stage of renaming leaves names that no later rule may touch, hence the anchors.
_RENAMES = (
    (re.compile(r"^bn0\."), "batch_norm."),
    (re.compile(r"\.norm1\."), ".layernorm_before."),
    (re.compile(r"\.norm2\."), ".layernorm_after."),
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
    (re.compile(r"\.attn\.proj\."), ".attention.output.dense."),
    (re.compile(r"\.attn\."), ".attention.self."),
)
_QKV = re.compile(r"\.qkv\.(weight|bias)$")


def configuration(network: str) -> ClapAudioConfig:
    """Settings of one of `NETWORKS` for transformers, without its hub.

    Raises:
        ValueError: unknown network.
    """
    from transformers import ClapAudioConfig

    if network not in NETWORKS:
        raise ValueError(f"network {network!r} is none of {', '.join(NETWORKS)}")
    name, fusion = NETWORKS[network]
    size = _SIZES[name]
    return ClapAudioConfig(
        patch_embeds_hidden_size=size.width,
        depths=list(size.depths),
        hidden_size=size.hidden,
        num_attention_heads=list(size.heads),
        window_size=8,
        num_mel_bins=64,
        spec_size=256,
        patch_size=size.patch,
        patch_stride=[size.patch, size.patch],
        projection_dim=size.embedding,
        enable_fusion=fusion,
        fusion_type="aff_2d" if fusion else None,
    )


def convert_tower(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the published tower (`layers.0.blocks.0.attn.qkv.weight`) -> keys of `ClapAudioEncoder`.

    The joint query, key and value matrix is cut into thirds; what is not part of the tower is left out.
    """
    converted = {}
    for name, tensor in state.items():
        if _LEFTOVERS.search(name):
            continue
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        joint = _QKV.search(name)
        if joint is None:
            converted[name] = tensor
            continue
        for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            converted[_QKV.sub(f".{part}.{joint[1]}", name)] = third.clone()
    return converted


def publish_tower(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of `ClapAudioEncoder` -> keys of the published tower, the inverse of `convert_tower`."""
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        published = name
        for part, replacement in _PUBLISHED_NAMES:
            published = published.replace(part, replacement)
        if (third := _THIRD.search(published)) is None:
            made[published] = tensor
        elif third[1] == "query":
            others = [state[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            made[_THIRD.sub(f".qkv.{third[2]}", published)] = torch.cat(others)
    return made


_PUBLISHED_NAMES = (
    (".attention.output.dense.", ".attn.proj."),  # before the block's own output.dense
    (".attention.self.", ".attn."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("batch_norm.", "bn0."),
)
_THIRD = re.compile(r"\.(query|key|value)\.(weight|bias)$")
