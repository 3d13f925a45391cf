"""Blocks that the CMRAN family shares: CMRAN, CMBS, CACE-Net, DMIN, the head of DG-SCT.

Sequences are (B, T, width); there are no positional encodings and no masks.  The public code registers layers that its
forward pass never reaches; `idle=True` registers them too, so that published parameter totals come out to the unit.
Source: Xu et al. 2020 (CMRAN), Xia and Zhao 2022 (CMBS) and their repositories.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attention(width: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)


class FeedForward(nn.Module):
    """LN(x + drop(W2 drop(ReLU(W1 x))))."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.layers(x))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, normalised after each residual."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.dropout(self.attention(x, x, x, need_weights=False)[0]))
        return self.feed_forward(x)


class CrossLayer(nn.Module):
    """Attention of a stream over [other modality; itself] along time, then feed-forward.

    Args:
        dense: replace ordinary attention by `DenseAttention` (DMIN).
        idle: also register the self-attention that the public code leaves unused.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float = 0.1, dense: bool = False, idle: bool = False
    ) -> None:
        super().__init__()
        self.dense = dense
        self.attention = DenseAttention(width, heads, dropout) if dense else attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout)
        if idle:
            self.idle = attention(width, heads, dropout)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        memory = torch.cat([other, x], dim=1)
        attended = self.attention(x, memory) if self.dense else self.attention(x, memory, memory)[0]
        return self.feed_forward(self.norm(x + self.dropout(attended)))


class DenseAttention(nn.Module):
    """DMIN's dense inter-modality attention, in closed form.

    The score of query i and key j of the other modality is the mean, over all cyclic shifts of the query's h channels,
    of their products: weight 1/2 for shift 0, 1/2 shared among the h - 1 others.  All shifts together give
    sum(q) * sum(k), so no loop is needed.  Keys of the own modality are scored as usual; one softmax spans both.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.into.weight)
        nn.init.zeros_(self.into.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, T, width) attended, from x and memory (B, S + T, width) = [other modality; x]."""
        width, others = x.shape[2], memory.shape[1] - x.shape[1]
        query = nn.functional.linear(x, self.into.weight[:width], self.into.bias[:width])
        key, value = nn.functional.linear(memory, self.into.weight[width:], self.into.bias[width:]).chunk(2, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        channels = query.shape[-1]
        query = query * channels**-0.5
        plain = query @ key.transpose(2, 3)
        weights = torch.cat([dense_scores(query, key[:, :, :others], plain[..., :others]), plain[..., others:]], dim=3)
        attended = self.dropout(weights.softmax(dim=3)) @ value
        return self.out(attended.transpose(1, 2).flatten(2))


def dense_scores(query: Tensor, key: Tensor, plain: Tensor | None = None) -> Tensor:
    """(..., T, S) scores of scaled queries (..., T, h) and keys (..., S, h) over all cyclic shifts of the channels."""
    channels = query.shape[-1]
    plain = query @ key.transpose(-2, -1) if plain is None else plain
    if channels == 1:
        return 0.5 * plain
    everything = query.sum(-1)[..., :, None] * key.sum(-1)[..., None, :]
    return (0.5 * plain + 0.5 / (channels - 1) * (everything - plain)) / channels


class TemporalEncoder(nn.Module):
    """Projection to the model width, then encoder layers."""

    def __init__(
        self, wide: int, width: int, hidden: int, heads: int = 4, layers: int = 2, dropout: float = 0.1,
        idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.project = nn.Linear(wide, width)
        self.layers = nn.Sequential(*[EncoderLayer(width, heads, hidden, dropout) for _ in range(layers)])
        if idle:
            self.idle = EncoderLayer(width, heads, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.project(x))


class CrossDecoder(nn.Module):
    """Projection of a stream to the model width, then one `CrossLayer` over the other modality's encoding."""

    def __init__(
        self, wide: int, width: int, hidden: int, heads: int = 4, dropout: float = 0.1, dense: bool = False,
        idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.project = nn.Linear(wide, width)
        self.layer = CrossLayer(width, heads, hidden, dropout, dense, idle)
        if idle:
            self.idle = CrossLayer(width, heads, hidden, dropout, dense, idle)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.layer(self.project(x), other)


class Interaction(nn.Module):
    """The product of two streams attends to both: LN(g + drop(MHA(g, [y; x], [y; x]))) with g = x * y."""

    def __init__(self, width: int, heads: int, head_dropout: float, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = attention(width, heads, head_dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        product, memory = x * y, torch.cat([y, x], dim=1)
        attended = self.attention(product, memory, memory, need_weights=False)[0]
        return self.norm(product + self.dropout(attended))


class BiLSTMPair(nn.Module):
    """One bidirectional LSTM per modality: audio to `width`, visual to `2 * width`."""

    def __init__(self, audio: int, visual: int, width: int) -> None:
        super().__init__()
        self.audio = nn.LSTM(audio, width // 2, batch_first=True, bidirectional=True)
        self.visual = nn.LSTM(visual, width, batch_first=True, bidirectional=True)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        return self.audio(audio)[0], self.visual(visual)[0]


class SupervisedHead(nn.Module):
    """Relevance of each segment, and category of the whole video from its maximum over time."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.relevance = nn.Linear(width, 1)
        self.category = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) relevance logits and (B, classes) category logits."""
        return self.relevance(x).squeeze(2), self.category(x.amax(dim=1))


class WeakHead(SupervisedHead):
    """As the supervised head, with a background class and a video-level probability.

    `classes` counts the background.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T) relevance logits, (B, classes) category scores, (B, classes) video probabilities."""
        relevance, category = super().forward(x)
        return relevance, category, video_probability(relevance.sigmoid(), category)


def video_probability(gate: Tensor, category: Tensor) -> Tensor:
    """softmax(max over time of gate * category): (B, T) in 0..1 and (B, C) -> (B, C)."""
    return (gate[:, :, None] * category[:, None, :]).amax(dim=1).softmax(dim=1)


class VisualInput(nn.Module):
    """Linear, ReLU and dropout at every spatial position."""

    def __init__(self, wide: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(wide, width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def top_mean(scores: Tensor, count: int = 4) -> Tensor:
    """(B, C): mean over time of the `count` largest of (B, T, C)."""
    return scores.topk(min(count, scores.shape[1]), dim=1).values.mean(dim=1)
