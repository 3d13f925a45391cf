"""Swin-V2-L token grids at 192 pixels: what DG-SCT 2023 reads from its frozen visual tower, and the clean default."""

from __future__ import annotations

import re

import torch
from torch import nn

from extractors.frame_encoder import FrameEncoder
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.weights import Weights

MICROSOFT = Weights(
    name="swin-v2-l",
    file="swinv2_large_patch4_window12_192_22k.pth",
    url="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/swinv2_large_patch4_window12_192_22k.pth",
    page="https://github.com/microsoft/Swin-Transformer",
    licence_code="MIT",
    licence_weights="MIT",
    member="model",
    note="ImageNet-22k. No digest is published; the licence of the weights is as timm states it.",
)

# Tables that follow from the sizes and are computed, not loaded; the classifier does not enter the feature.
_UNUSED = re.compile(r"(relative_position_index|relative_coords_table|attn_mask|attn\.k_bias)$|^head\.")


class SwinV2L(FrameEncoder):
    """Frames to the 6 x 6 grid of 1536 numbers after the last norm, row by row."""

    batch_rows = 8
    pictures_at_once = (8, 128)

    def build_network(self) -> nn.Module:
        import timm

        return timm.create_model("swinv2_large_window12_192", pretrained=False, num_classes=0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 36, 1536) from (n, 3, 192, 192)."""
        return self.network.forward_features(inputs).flatten(1, 2)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of the published file, where a stage ends in its `downsample`, or of timm, where one starts with it."""
        state = {key: value for key, value in state.items() if not _UNUSED.search(key)}
        if not any(key.startswith("layers.0.downsample.") for key in state):
            return state
        later = re.compile(r"^layers\.(\d+)\.downsample\.")
        return {
            later.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", key): value
            for key, value in state.items()
        }


def _spec(recipe: str, preprocess: tuple[str, ...], grid: Grid, sampler: FrameSampler) -> FeatureSpec:
    return FeatureSpec(
        encoder="swin-v2-l",
        recipe=recipe,
        modality="visual",
        layer="norm",
        preprocess=preprocess,
        postprocess=(),
        grid=grid,
        sampler=sampler,
        shape=(36, 1536),
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec(
            "default",
            ("shorter size=213 filter=pil-bicubic", "crop size=192", "unit", "standardize by=imagenet"),
            Grid(1.0, 1.0),
            FrameSampler("centres", per_row=1),
        ),
        MICROSOFT,
        "clave; network of Liu et al. 2022, preprocessing as timm states it for the checkpoint",
        ("The frame at the middle of the row.",),
    ),
    Recipe(
        _spec(
            "dgsct2023",
            ("unit", "squash size=192 filter=tensor-bicubic", "standardize by=imagenet"),
            Grid(1.0, 1.0, count=10),
            FrameSampler("spread-floor", per_row=1, total=10),
        ),
        MICROSOFT,
        "DG-SCT, NeurIPS 2023; haoyi-duan/DG-SCT@211fc57",
        (
            "The frozen tower alone: the paper trains adapters inside its blocks and pools with a learned map.",
            "Frames are picked from the decoded stream; how the authors cut their JPEGs is not established.",
        ),
    ),
)
