"""CLIP image and text towers, ViT-B/32, B/16 and L/14: VALOR 2023, LSLD 2023 and the clean defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from extractors.frame_encoder import FrameEncoder
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.weights import Weights


@dataclass(frozen=True)
class Architecture:
    """Sizes of the two transformers; heads are 64 wide, the MLP is four times the width."""

    patch: int
    image_width: int
    image_layers: int
    text_width: int
    embedding: int
    text_layers: int = 12
    image_size: int = 224


ARCHITECTURES: dict[str, Architecture] = {
    "clip-b32": Architecture(32, 768, 12, 512, 512),
    "clip-b16": Architecture(16, 768, 12, 512, 512),
    "clip-l14": Architecture(14, 1024, 24, 768, 768),
}

CONTEXT_TOKENS = 77
VOCABULARY = 49_408

_PROMPTS_AT_ONCE = 64


def _weights(name: str, file: str, sha256: str) -> Weights:
    return Weights(
        name=name,
        file=file,
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}",
        page="https://github.com/openai/CLIP",
        sha256=sha256,
        licence_code="MIT",
        note="Stored in half precision; computed in single. The safetensors of the same model on a model hub "
        "(keys of transformers) are accepted as --weights PATH.",
    )


B32 = _weights("clip-b32", "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af")
B16 = _weights("clip-b16", "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f")
L14 = _weights("clip-l14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836")


class CLIP(FrameEncoder):
    """Frames and sentences to one space; the image side is the row, `encode_text` the other."""

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.spec.encoder]

    def build_network(self) -> nn.Module:
        from transformers import CLIPConfig, CLIPModel
        from transformers.initialization import no_init_weights

        sizes = self.architecture
        text = {
            "hidden_size": sizes.text_width,
            "intermediate_size": 4 * sizes.text_width,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_width // 64,
            "max_position_embeddings": CONTEXT_TOKENS,
            "vocab_size": VOCABULARY,
            "eos_token_id": VOCABULARY - 1,
            "hidden_act": "quick_gelu",
        }
        image = {
            "hidden_size": sizes.image_width,
            "intermediate_size": 4 * sizes.image_width,
            "num_hidden_layers": sizes.image_layers,
            "num_attention_heads": sizes.image_width // 64,
            "patch_size": sizes.patch,
            "image_size": sizes.image_size,
            "hidden_act": "quick_gelu",
        }
        with no_init_weights():  # 16 s for L/14, and every value is overwritten
            return CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=sizes.embedding))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, D) projected class tokens, of any length, from (n, 3, S, S)."""
        image = self.network.vision_model
        *layers, last = image.encoder.layers
        tokens = image.pre_layrnorm(image.embeddings(inputs))
        for layer in layers:
            tokens = layer(tokens, None)
        return self.network.visual_projection(image.post_layernorm(_class_token(last, tokens)))

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in CLIP's logits; 100 where training reached its clamp."""
        return math.exp(float(self.network.logit_scale.detach()))

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """(P, D) float32 rows of length 1, on the network's device.

        The cosine of a prompt with a frame is the product with the frame's row divided by its length.

        Raises:
            ValueError: a prompt is longer than 77 tokens, start and end included.
        """
        ids = tokenize(prompts).to(self.device)
        parts = []
        for some in ids.split(_PROMPTS_AT_ONCE):
            with self.arithmetic(ids.device):
                pooled = self.network.text_model(input_ids=some).pooler_output
                projected = self.network.text_projection(pooled)
            parts.append(torch.nn.functional.normalize(projected.float(), dim=-1))
        return torch.cat(parts)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of OpenAI's files, or of transformers, to those of transformers."""
        if "visual.conv1.weight" in state:
            return _from_openai(state)
        return {key: value for key, value in state.items() if not key.endswith("position_ids")}


def _class_token(layer: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """(n, W) the first token of what a layer makes of (n, T, W).

    Of the last layer nothing else is used.  The others are needed as keys and values only: five sixths of the layer's
    work are saved, 7 % of ViT-B's and 3 % of ViT-L's.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)
    projected = attention.q_proj(normed[:, :1]), attention.k_proj(normed), attention.v_proj(normed)
    heads = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in projected)
    attended = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    token = tokens[:, :1] + attention.out_proj(attended)
    return (token + layer.mlp(layer.layer_norm2(token)))[:, 0]


def tokenize(prompts: Sequence[str]) -> torch.Tensor:
    """(P, 77) int64 token ids, padded with 0; the byte-pair vocabulary comes with the package open_clip_torch.

    Raises:
        ValueError: prompts that are too long, all of them named.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=CONTEXT_TOKENS)
    too_long = [prompt for prompt in prompts if len(tokenizer.encode(prompt)) > CONTEXT_TOKENS - 2]
    if too_long:
        raise ValueError(f"{len(too_long)} prompts exceed {CONTEXT_TOKENS} tokens, shorten them: {too_long}")
    return tokenizer(list(prompts))


HEADS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # misspelt in transformers
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
LAYER_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK_KEY = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")
# Numbers that the TorchScript archive stores beside the parameters.
_ARCHIVE_CONSTANTS = ("input_resolution", "context_length", "vocab_size")


def _from_openai(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The whole published state dict; keys that fit no rule stay as they are, for the loader to name."""
    converted = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        if key in _ARCHIVE_CONSTANTS:
            continue
        if key in HEADS:
            transposed = key in ("visual.proj", "text_projection")
            converted[HEADS[key]] = value.T.contiguous() if transposed else value
        elif module in NORMS:
            converted[f"{NORMS[module]}.{kind}"] = value
        elif match := _BLOCK_KEY.match(key):
            visual, number, part, kind = match.groups()
            block = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"
            if part == "attn.in_proj":
                for name, third in zip("qkv", value.chunk(3), strict=True):
                    converted[f"{block}.self_attn.{name}_proj.{kind}"] = third
            else:
                converted[f"{block}.{LAYER_PARTS.get(part, part)}.{kind}"] = value
        else:
            converted[key] = value
    return converted


_OFFICIAL = ("shorter size=224 filter=pil-bicubic", "crop size=224", "unit", "standardize by=clip")


def _spec(
    encoder: str,
    recipe: str,
    preprocess: tuple[str, ...],
    postprocess: tuple[str, ...],
    grid: Grid,
    sampler: FrameSampler,
) -> FeatureSpec:
    return FeatureSpec(
        encoder=encoder,
        recipe=recipe,
        modality="visual",
        layer="image_embeds",
        preprocess=preprocess,
        postprocess=postprocess,
        grid=grid,
        sampler=sampler,
        shape=(ARCHITECTURES[encoder].embedding,),
    )


def _clean(encoder: str, weights: Weights) -> Recipe:
    return Recipe(
        _spec(encoder, "default", _OFFICIAL, ("l2",), Grid(1.0, 1.0), FrameSampler("centres", per_row=1)),
        weights,
        "clave; network and preprocessing of Radford et al. 2021",
        ("The frame at the middle of the row, as a vector of length 1.",),
    )


RECIPES: tuple[Recipe, ...] = (
    _clean("clip-b32", B32),
    _clean("clip-b16", B16),
    _clean("clip-l14", L14),
    Recipe(
        _spec(
            "clip-l14",
            "valor2023",
            ("unit", "squash size=224 filter=tensor-bilinear", "standardize by=clip"),
            ("l2",),
            Grid(1.0, 1.0, count=10),
            FrameSampler("spread", per_row=1, total=10, source="jpeg-r8"),
        ),
        L14,
        "VALOR, NeurIPS 2023; Franklin905/VALOR@2677da9",
        ("Row t is written as [t, t + 1] s; its frame lies near 10/9 t s, and the last row's is the clip's last.",),
    ),
    Recipe(
        _spec(
            "clip-b16",
            "lsld2023",
            _OFFICIAL,
            (),
            Grid(0.125, 0.125, count=80),
            FrameSampler("spread", per_row=1, total=80, source="jpeg-r8"),
        ),
        B16,
        "LSLD, NeurIPS 2023; fyyCS/LSLD@d34c988",
        ("Single precision; the authors' files are float16 when made on a GPU. Rows are not normalised.",),
    ),
)
