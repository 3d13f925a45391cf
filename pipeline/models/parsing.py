"""What the AVVP networks share: hybrid attention and multimodal multiple-instance pooling.

Sources: Tian et al. 2020 (HAN), Lai et al. 2023 (VALOR), with their repositories.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.blocks import attention

#: Probabilities are kept this far from 0 and 1 before a logarithm.
EDGE = 1e-7


class HybridLayer(nn.Module):
    """A stream attends to the other modality and to itself; the two results are added.

    Args:
        pre_norm: normalise before each sub-layer instead of after each residual.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.1, pre_norm: bool = False) -> None:
        super().__init__()
        self.own = attention(width, heads, dropout)
        self.other = attention(width, heads, dropout)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm_attention = nn.LayerNorm(width)
        self.norm_layers = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        query = self.norm_attention(x) if self.pre_norm else x
        x = x + self.dropout(self.other(query, other, other)[0]) + self.dropout(self.own(query, query, query)[0])
        if self.pre_norm:
            return x + self.layers(self.norm_layers(x))
        x = self.norm_attention(x)
        return self.norm_layers(x + self.layers(x))


class HybridStack(nn.Module):
    """Layers shared by both directions.

    Args:
        updated: the visual stream meets the audio stream that this layer has already updated (VALOR); otherwise both
            read the streams as they entered the layer (HAN).
        idle: also register the final normalisations that post-norm networks of the public code leave unused.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, layers: int, updated: bool, pre_norm: bool = False,
        idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList([HybridLayer(width, heads, hidden, pre_norm=pre_norm) for _ in range(layers)])
        self.updated, self.pre_norm = updated, pre_norm
        if pre_norm or idle:
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            heard = layer(audio, visual)
            visual = layer(visual, heard if self.updated else audio)
            audio = heard
        if self.pre_norm:
            return self.norms[0](audio), self.norms[1](visual)
        return audio, visual


class MILHead(nn.Module):
    """Class probabilities per segment and modality, pooled with learned weights over time and over modalities."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.probability = nn.Linear(width, classes)
        self.in_time = nn.Linear(width, classes)
        self.in_modality = nn.Linear(width, classes)

    def forward(self, audio: Tensor, visual: Tensor) -> dict[str, Tensor]:
        """Probabilities and logits from two (B, T, width) streams.

        Returns:
            `video`, `video_audio`, `video_visual` (B, C); `audio`, `visual` (B, T, C); `audio_logits`, `visual_logits`.
        """
        both = torch.stack([audio, visual], dim=2)
        logits = self.probability(both)
        probability = logits.sigmoid()
        in_time = self.in_time(both).softmax(dim=1) * probability
        video = (in_time * self.in_modality(both).softmax(dim=2)).sum(dim=(1, 2))
        video_audio, video_visual = in_time.sum(dim=1).unbind(dim=1)
        heard, seen = probability.unbind(dim=2)
        heard_logits, seen_logits = logits.unbind(dim=2)
        return {
            "video": video,
            "video_audio": video_audio,
            "video_visual": video_visual,
            "audio": heard,
            "visual": seen,
            "audio_logits": heard_logits,
            "visual_logits": seen_logits,
        }


def probability_loss(probability: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of probabilities, clamped away from 0 and 1."""
    return F.binary_cross_entropy(probability.clamp(EDGE, 1 - EDGE), target)


def mean_groups(x: Tensor, segments: int) -> Tensor:
    """(B, n, D) -> (B, segments, D): mean over equal groups of consecutive frames."""
    return x.unflatten(1, (segments, -1)).mean(dim=2)


def map_pooling(tokens: int, segments: int, rows: int = 2, wide: int = 1024) -> Tensor:
    """(segments, tokens): weights that bring a CLAP feature map to one vector per segment.

    The public code views the tokens as `rows` frequency rows of time steps, stretches time to `wide` by bicubic
    interpolation, projects, averages the rows and pools adaptively.  All of it is linear with weights that sum to 1, so
    it commutes with the projection and is one small matrix.
    """
    unit = torch.eye(tokens).view(tokens, 1, rows, tokens // rows)
    stretched = F.interpolate(unit, size=(rows, wide), mode="bicubic").mean(dim=2)
    return F.adaptive_avg_pool1d(stretched, segments)[:, 0].T.contiguous()
