"""Audio-guided visual attention in its three forms, and CACE-Net's co-guidance.

All take (B, T, P, D) visual maps after the input layer and (B, T, A) audio.
Sources: Xu et al. 2020 (CMRAN), Xia and Zhao 2022 (CMBS), He et al. 2024 (CACE-Net), with their repositories.
"""

from __future__ import annotations

from torch import Tensor, nn


class SpatialSelfAttention(nn.Module):
    """LN(V + drop(softmax(V Wq (V Wk)^T) V Wo)) over positions (or over time); the product is not scaled."""

    def __init__(self, width: int, inner: int, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        if norm:
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """The same shape; `norm` is another layer's normalisation to be used in place of an own one."""
        weights = (self.query(x) @ self.key(x).transpose(-2, -1)).softmax(dim=-1)
        return (norm or self.norm)(x + self.dropout(weights @ self.value(x)))


class ChannelAttention(nn.Module):
    """V (1 + Mc): channels of the visual map reweighted by what it shares with the audio."""

    def __init__(self, visual: int, audio: int, hidden: int) -> None:
        super().__init__()
        self.audio = nn.Linear(audio, visual)
        self.visual = nn.Linear(visual, visual)
        self.squeeze = nn.Linear(visual, hidden)
        self.expand = nn.Linear(hidden, visual)

    def forward(self, visual: Tensor, audio: Tensor, query: Tensor | None = None) -> Tensor:
        """The map, reweighted; `query` replaces the map inside the channel query (CMBS)."""
        query = visual if query is None else query
        shared = (self.audio(audio).relu()[:, :, None] * self.visual(query).relu()).mean(dim=2)
        weight = self.expand(self.squeeze(shared).relu()).sigmoid()
        return visual * (1 + weight[:, :, None])


class SpatialAttention(nn.Module):
    """Weighted mean over positions; weights from the product of projected map and audio."""

    def __init__(self, visual: int, audio: int, hidden: int) -> None:
        super().__init__()
        self.visual = nn.Linear(visual, hidden)
        self.audio = nn.Linear(audio, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        return pool(self.score(self.visual(visual).relu() * self.audio(audio).relu()[:, :, None]), visual)


def pool(score: Tensor, visual: Tensor) -> Tensor:
    """(B, T, D): mean of (B, T, P, D) over positions, weighted by softmax(tanh(score)), score (B, T, P, 1)."""
    return (score.tanh().softmax(dim=2).transpose(2, 3) @ visual).squeeze(2)


class AudioGuidedAttention(nn.Module):
    """CMRAN's attention: channel, then spatial.

    Args:
        idle: also register the two video-guided layers that the public code leaves unused (41,152 parameters).
    """

    def __init__(self, visual: int, audio: int, hidden: int, idle: bool = False) -> None:
        super().__init__()
        self.channel = ChannelAttention(visual, audio, hidden)
        self.spatial = SpatialAttention(visual, audio, hidden)
        if idle:
            self.idle = nn.ModuleList([nn.Linear(visual, visual // 8), nn.Linear(visual // 8, audio)])

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        return self.spatial(self.channel(visual, audio), audio)


class CalibratedAttention(nn.Module):
    """CMBS's attention: CMRAN's with spatial self-attention and a self-calibration term.

    Args:
        beta: strength of the self-calibration.
        idle: also register the layer that the public code leaves unused (131,328 parameters).
    """

    def __init__(self, visual: int, audio: int, hidden: int, beta: float, idle: bool = False) -> None:
        super().__init__()
        self.beta = beta
        self.self_attention = SpatialSelfAttention(visual, visual // 4)
        self.channel = ChannelAttention(visual, audio, hidden)
        self.spatial = SpatialAttention(visual, audio, hidden)
        self.calibrate_mean = nn.Linear(visual, hidden)
        self.calibrate_map = nn.Linear(visual, hidden)
        self.calibrate_score = nn.Linear(hidden, 1)
        if idle:
            self.idle = nn.Linear(visual, hidden)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        attended = self.self_attention(visual)
        guided = self.spatial(self.channel(visual, audio, attended), audio)
        mean = self.calibrate_mean(attended.mean(dim=2)).relu()[:, :, None]
        own = pool(self.calibrate_score(self.calibrate_map(attended).relu() * mean), attended)
        return guided + self.beta * own.sigmoid() * guided


class VisualGuidedAudio(nn.Module):
    """The other half of CACE-Net's co-guidance: audio is reweighted by attention that the video asks for.

    The public code computes the video's query with a self-attention of its own that borrows the first one's
    normalisation; its own normalisation is idle.  The paper draws one self-attention for both; `shared=True` does that.
    """

    def __init__(self, visual: int, audio: int, psi: float, shared: bool = False, idle: bool = False) -> None:
        super().__init__()
        self.psi = psi
        self.own = None if shared else SpatialSelfAttention(visual, visual // 4, norm=False)
        self.audio_self = SpatialSelfAttention(audio, audio)
        self.query = nn.Linear(visual, audio)
        self.key = nn.Linear(audio, audio)
        self.value = nn.Linear(audio, audio)
        if idle:
            self.idle = nn.LayerNorm(visual)

    def forward(self, visual: Tensor, audio: Tensor, first: SpatialSelfAttention) -> Tensor:
        attended = first(visual) if self.own is None else self.own(visual, first.norm)
        heard = self.audio_self(audio)
        weights = (self.query(attended.mean(dim=2)) @ self.key(heard).transpose(1, 2)).softmax(dim=2)
        return audio + self.psi * (weights @ self.value(heard)).sigmoid() * audio
