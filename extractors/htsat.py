"""HTS-AT, the AudioSet tagger: the token grid that DG-SCT fuses, and the averaged latent of the paper.

The network is CLAP's audio tower without CLAP (`extractors.nets.htsat`) at 32 kHz.  It was trained on ten seconds, so
a row's second is repeated ten times.

Source: Chen et al., "HTS-AT", ICASSP 2022; RetroCirce/HTS-Audio-Transformer@2e29471.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from extractors import clap_mel
from extractors.base import Encoder, MediaView
from extractors.nets.htsat import configuration, convert_tower
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, Grid
from extractors.weights import Weights

AUDIOSET = Weights(
    name="htsat-audioset",
    file="HTSAT_AudioSet_Saved_1.ckpt",
    url=None,
    page="https://github.com/RetroCirce/HTS-Audio-Transformer",
    licence_code="MIT",
    member="state_dict",
    note="The authors link a Google Drive folder; size and digest are not published.",
)


class HTSATNetwork(nn.Module):
    """HTSAT-tiny without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ClapAudioModel

        self.audio_model = ClapAudioModel(configuration("htsat-tiny"))

    def stage4(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1001, 64) decibels -> (B, 64, 768) tokens before the last LayerNorm.

        Tokens are row-major over the 8 x 8 image grid: row = chunk * 2 + frequency, column = time within the chunk.
        """
        stages = self.audio_model(spectrograms, output_hidden_states=True).hidden_states
        return stages[-1].flatten(2).transpose(1, 2)

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1001, 64) decibels -> (B, 768): mean of the tokens after the last LayerNorm."""
        return self.audio_model(spectrograms).pooler_output


class HTSAT(Encoder):
    """Ten seconds of sound to 768 numbers (`layer` is `latent`) or to 64 tokens of 768 (`stage4`)."""

    batch_rows = 8

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer not in ("latent", "stage4"):
            raise ValueError(f"layer {spec.layer!r} is neither latent nor stage4")

    def build_network(self) -> nn.Module:
        return HTSATNetwork()

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, n) samples, ten seconds of them; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        return clap_mel.collect(self.spec.preprocess, media, segments, self.spec.grid)

    def transform(self, collected: torch.Tensor) -> torch.Tensor:
        """(T, 1, 1001, 64) float32 decibel mel spectrograms."""
        return clap_mel.transform(self.spec.preprocess, collected)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 768) or (B, 64, 768) from (B, 1, 1001, 64) spectrograms."""
        return self.network.stage4(inputs) if self.spec.layer == "stage4" else self.network(inputs)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of the authors' Lightning checkpoint -> the network's."""
        tower = {name.removeprefix("sed_model."): tensor for name, tensor in state.items()}
        return {f"audio_model.audio_encoder.{name}": tensor for name, tensor in convert_tower(tower).items()}


def _spec(recipe: str, layer: str, grid: Grid, shape: tuple[int, ...]) -> FeatureSpec:
    return FeatureSpec(
        encoder="htsat",
        recipe=recipe,
        modality="audio",
        layer=layer,
        preprocess=(
            "decode rate=32000 channels=mean filter=soxr_hq",
            "cut",
            "repeat-pad samples=320000",
            "log-mel rate=32000 hop=320 bank=slaney norm=slaney window=1024 bands=64 low_hz=50 high_hz=14000",
        ),
        postprocess=(),
        grid=grid,
        sampler=None,
        shape=shape,
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec("default", "latent", Grid(1.0, 1.0), (768,)),
        AUDIOSET,
        "clave; network and front end of Chen et al. 2022",
        (
            "A row hears its own second, ten times over, as DG-SCT does; nothing of the neighbouring seconds.",
            "Audio that ends before the last row is continued with silence.",
        ),
    ),
    Recipe(
        _spec("dgsct2023", "stage4", Grid(1.0, 1.0, count=10), (64, 768)),
        AUDIOSET,
        "Duan et al., DG-SCT, NeurIPS 2023; haoyi-duan/DG-SCT@211fc57",
        (
            "The published code reads waveforms from .npy files of unknown making; here the clip is decoded at 32 kHz, "
            "channels averaged, resampled with soxr_hq.",
            "The frozen branch is in evaluation mode; DG-SCT's training leaves SpecAugment on in it.",
            "Audio that ends before the last row is continued with silence.",
        ),
    ),
)
