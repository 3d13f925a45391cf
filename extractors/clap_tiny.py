"""CLAP small enough to be trained during the demo: the class of the real ones with small settings.

Its weights come from `python -m pipeline.teach`, in laion_clap's key format; nobody publishes any.  Captions go through
CLIP's byte-pair vocabulary, which a package brings along: RoBERTa's has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from extractors import clip
from extractors.clap import Clap
from extractors.nets.clap import TextTower
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, Grid

EMBEDDING = 64
# RoBERTa's convention: id 1 is padding and positions count from 2, so CLIP's ids move up by 2.
_SHIFT, _PADDING = 2, 1


class ClapTiny(Clap):
    """A second of sound, and sentences, to 64 numbers."""

    batch_rows = 16

    def build_text(self) -> TextTower:
        return TextTower(
            vocab_size=clip.VOCABULARY + _SHIFT,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=clip.CONTEXT_TOKENS + _SHIFT,
            projection_dim=EMBEDDING,
        )

    def tokenize(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both (P, 77) int64.

        Raises:
            ValueError: a prompt is longer than 77 tokens.
        """
        ids = clip.tokenize(prompts)
        end = ids.argmax(dim=1, keepdim=True)  # the end token has the highest id; zeros follow
        mask = torch.arange(ids.shape[1]) <= end
        return torch.where(mask, ids + _SHIFT, _PADDING), mask.long()


def published(audio: dict[str, torch.Tensor], text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dicts of the two towers -> laion_clap's keys, the inverse of `extractors.nets.clap.split_state`."""
    from extractors.nets.htsat import publish_tower

    tower, made = {}, {}
    for key, value in {**audio, **text}.items():
        branch, _, rest = key.partition(".")
        if key.startswith("audio_model.audio_encoder."):
            tower[key.removeprefix("audio_model.audio_encoder.")] = value
        elif branch == "text_model":
            made[f"module.text_branch.{rest}"] = value
        elif branch in ("audio_projection", "text_projection"):
            layer, _, leaf = rest.partition(".")
            made[f"module.{branch}.{ {'linear1': '0', 'linear2': '2'}[layer] }.{leaf}"] = value
        else:
            made[f"module.{key}"] = value
    return {f"module.audio_branch.{key}": value for key, value in publish_tower(tower).items()} | made


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        FeatureSpec(
            encoder="clap-tiny",
            recipe="default",
            modality="audio",
            layer="htsat-demo/projection",
            preprocess=(
                "decode rate=48000 channels=mean filter=soxr_hq",
                "cut",
                "round-trip bits=16",
                "repeat-pad samples=480000",
                "log-mel rate=48000 hop=480 bank=slaney norm=slaney window=1024 bands=64 low_hz=50 high_hz=14000",
            ),
            postprocess=("l2",),
            grid=Grid(1.0, 1.0),
            sampler=None,
            shape=(EMBEDDING,),
        ),
        None,
        "clave; trained by pipeline.teach on captioned demo clips",
    ),
)
