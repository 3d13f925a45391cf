"""CLIP small enough to be trained during the demo: the class of the real ones with small settings.

Its weights come from `python -m pipeline.teach`, in the key format of OpenAI's files; nobody publishes any.
"""

from __future__ import annotations

import torch

from extractors.clip import CLIP, Architecture
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid

ARCHITECTURE = Architecture(
    patch=8, image_width=64, image_layers=3, text_width=64, embedding=64, text_layers=1, image_size=64
)


class CLIPTiny(CLIP):
    """Frames of 64 x 64 and sentences to 64 numbers."""

    batch_rows = 64

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURE


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of transformers' CLIP -> keys of OpenAI's files, the inverse of `CLIP.convert`."""
    from extractors.clip import HEADS, LAYER_PARTS, NORMS

    heads = {own: name for name, own in HEADS.items()}
    norms = {own: name for name, own in NORMS.items()}
    parts = {own: name for name, own in LAYER_PARTS.items()}
    made: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        if key in heads:
            transposed = heads[key] in ("visual.proj", "text_projection")
            made[heads[key]] = value.T.contiguous() if transposed else value
        elif module in norms:
            made[f"{norms[module]}.{kind}"] = value
        elif ".encoder.layers." in key:
            side, number, part = key.split(".")[0], key.split(".")[3], ".".join(key.split(".")[4:-1])
            block = f"{'visual.' if side == 'vision_model' else ''}transformer.resblocks.{number}"
            if part == "self_attn.q_proj":
                thirds = [state[f"{side}.encoder.layers.{number}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                made[f"{block}.attn.in_proj_{kind}"] = torch.cat(thirds)
            elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
                made[f"{block}.{parts[part]}.{kind}"] = value
        elif not key.endswith("position_ids"):
            made[key] = value
    return made


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        FeatureSpec(
            encoder="clip-tiny",
            recipe="default",
            modality="visual",
            layer="image_embeds",
            preprocess=("squash size=64 filter=pil-bilinear", "unit", "standardize by=clip"),
            postprocess=("l2",),
            grid=Grid(1.0, 1.0),
            sampler=FrameSampler("centres", per_row=1),
            shape=(ARCHITECTURE.embedding,),
        ),
        None,
        "clave; trained by pipeline.teach on captioned demo clips",
        ("The whole frame is squashed, not cropped: demo clips show things at the edges.",),
    ),
)
