"""CLAP's two towers as transformers builds them, and the way from laion_clap's key format.

Source: Wu et al., "Large-scale contrastive language-audio pretraining", ICASSP 2023; LAION-AI/CLAP@1fd4c37.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from extractors.nets.htsat import configuration, convert_tower

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

#: Index tables that some versions of transformers keep in their files.
BUFFERS = re.compile(r"(position_ids|token_type_ids)$")
# Sequential(Linear, ReLU, Linear) in the published files.
_PROJECTION = {"0": "linear1", "2": "linear2"}


class AudioTower(nn.Module):
    """HTS-AT, the projection into the shared space, and the two trained logit scales."""

    def __init__(self, network: str) -> None:
        super().__init__()
        from transformers import ClapAudioModel
        from transformers.models.clap.modeling_clap import ClapProjectionLayer

        settings = configuration(network)
        self.fusion = settings.enable_fusion
        self.audio_model = ClapAudioModel(settings)
        self.audio_projection = ClapProjectionLayer(settings)
        self.logit_scale_a = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.logit_scale_t = nn.Parameter(torch.tensor(1 / 0.07).log())

    def _run(self, spectrograms: torch.Tensor) -> BaseModelOutputWithPooling:
        # Never true: transformers' own feature extractor sets it at random for one row of a batch.
        longer = torch.zeros(len(spectrograms), 1, dtype=torch.bool) if self.fusion else None
        return self.audio_model(spectrograms, is_longer=longer)

    def tokens(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1001, 64) decibels -> (B, 64, C) after the last LayerNorm; token = frequency * 32 + time."""
        return self._run(spectrograms).last_hidden_state.flatten(2).transpose(1, 2)

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1001, 64) decibels -> (B, 512), not normalised."""
        return self.audio_projection(self._run(spectrograms).pooler_output)


class TextTower(nn.Module):
    """RoBERTa-base, its pooler, and the projection into the shared space.

    Args:
        sizes: of `ClapTextConfig`, where they are not RoBERTa-base's.
    """

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        from transformers import ClapTextConfig, ClapTextModel
        from transformers.models.clap.modeling_clap import ClapProjectionLayer

        # transformers' default of 1e-12 is not RoBERTa's and moves the embedding by 3e-5.
        settings = ClapTextConfig(layer_norm_eps=1e-5, **sizes)
        self.text_model = ClapTextModel(settings)
        self.text_projection = ClapProjectionLayer(settings)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(P, 77) token ids and mask -> (P, 512) rows of length 1."""
        pooled = self.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return nn.functional.normalize(self.text_projection(pooled), dim=-1)


def split_state(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A laion_clap state dict -> keys of `AudioTower` and of `TextTower`; names of transformers' files are kept.

    The two `*_transform` heads of the training loss are left out; a name that is not known goes to the audio tower,
    where loading refuses it.
    """
    audio, text, tower = {}, {}, {}
    for published, tensor in state.items():
        name = published.removeprefix("module.")
        branch, _, rest = name.partition(".")
        if branch in ("audio_transform", "text_transform") or BUFFERS.search(name):
            continue
        if branch == "audio_branch":
            tower[rest] = tensor
        elif branch in ("text_branch", "text_model"):
            text[f"text_model.{rest}"] = tensor
        elif branch in ("audio_projection", "text_projection"):
            layer, _, leaf = rest.partition(".")
            target = audio if branch == "audio_projection" else text
            target[f"{branch}.{_PROJECTION.get(layer, layer)}.{leaf}"] = tensor
        else:
            audio[name] = tensor
    audio.update({f"audio_model.audio_encoder.{name}": tensor for name, tensor in convert_tower(tower).items()})
    return audio, text
