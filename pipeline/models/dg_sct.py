"""DG-SCT (Duan et al. 2023): dual-guided adapters, and the head that is trained on AVE.

The publication trains 48 adapters *between* the blocks of two frozen backbones, which needs media and backbones in
every step.  On stored features what can be trained is the head, and adapters behind the backbones' last maps: `DGSCT`
is that.  `Adapter` itself is complete and fits all four stages (`STAGES`).
Source: paper and repository haoyi-duan/DG-SCT; the paper's equations leave out the latent tokens, the bottleneck and
the zero gate, which the code has and without which the published 43.6 % of trainable parameters does not come out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.base import Model, Shapes, positions
from pipeline.models.blocks import BiLSTMPair, SupervisedHead, VisualInput
from pipeline.models.suppression import Suppression, suppression_losses

#: Tokens and width of Swin-V2-L and of HTS-AT per stage, and how many adapter pairs stand there.
STAGES = ((2304, 192, 4096, 96, 2), (576, 384, 1024, 192, 2), (144, 768, 256, 384, 6), (36, 1536, 64, 768, 2))


class Adapter(nn.Module):
    """A stream adapted under the guidance of the other one, per segment.

    Args:
        tokens, width: of the stream.
        other_tokens, other_width: of the other one.
        alpha, beta: share of the channel and of the spatial weights.
        latents: learnable tokens that carry the other stream over.
        idle: also register the scalar that the public code leaves unused.
    """

    def __init__(
        self, tokens: int, width: int, other_tokens: int, other_width: int, alpha: float = 0.3, beta: float = 0.05,
        latents: int = 32, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        half, narrow = width // 2, width // 8
        self.alpha, self.beta = alpha, beta
        self.mix_tokens = nn.Linear(other_tokens, tokens)
        self.mix_channels = nn.Linear(other_width, width)
        self.latents = nn.Parameter(torch.rand(latents, width))
        self.carry = nn.Parameter(torch.zeros(1))
        self.guide_channel, self.own_channel = nn.Linear(width, width), nn.Linear(width, width)
        self.squeeze, self.expand = nn.Linear(width, half), nn.Linear(half, width)
        self.own_spatial, self.guide_spatial = nn.Linear(width, half), nn.Linear(width, half)
        self.score = nn.Linear(half, 1)
        self.norm_before, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.down = nn.Conv1d(width, narrow, 1, groups=2, bias=False)
        self.up = nn.Conv1d(narrow, width, 1, groups=2, bias=False)
        self.norm_down, self.norm_up = nn.BatchNorm1d(narrow), nn.BatchNorm1d(width)
        self.gate = nn.Parameter(torch.zeros(1))
        if idle:
            self.idle = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the stream (n, N, C), and the weights of its tokens (n, N), which sum to 1.

        Args:
            x: (n, N, C); n is batch times segments.
            other: (n, N', C').
        """
        brought = self.mix_channels(self.mix_tokens(other.transpose(1, 2)).transpose(1, 2))
        latents = self.latents + (self.latents @ brought.transpose(1, 2)).softmax(dim=2) @ brought
        x = x + self.carry * ((x @ latents.transpose(1, 2)).softmax(dim=2) @ latents)
        mean = brought.mean(dim=1, keepdim=True)
        query = (self.guide_channel(mean).relu() * self.own_channel(x).relu()).mean(dim=1, keepdim=True)
        channel = self.expand(self.squeeze(query).relu()).sigmoid()
        score = self.score(self.own_spatial(x * (1 + channel)).relu() * self.guide_spatial(mean).relu())
        weights = score.tanh().softmax(dim=1).squeeze(2)
        x = x * (self.alpha * channel + self.beta * score.sigmoid() + 1 - self.alpha)
        inner = self.norm_down(self.down(self.norm_before(x).transpose(1, 2))).relu()
        return self.gate * self.norm_after(self.norm_up(self.up(inner)).transpose(1, 2)), weights


class DGSCT(Model):
    """Adapters on the last maps, if asked for, and the published AVE head.

    Args:
        shapes: of a clip: `visual` (T, D) or a map (T, H, W, D) or tokens (T, N, D); `audio` likewise.  Published: Swin
            (T, 36, 1536) and HTS-AT (T, 64, 768).
        classes: event classes without background.
        adapter: adapt the maps and pool them with the adapters' weights; vectors cannot be adapted.
        alpha, beta: of the adapters.
        gate_alpha: strength of the time-level gates (the paper's gamma).
        idle: also register the interactions that the public code computes and discards, and its other leftovers.
    """

    task = "ave"
    streams: ClassVar = {
        "visual": "last map of the image encoder, (T, N, D), (T, H, W, D), or its mean (T, D)",
        "audio": "last map of the audio encoder, (T, N, D), or its mean (T, D)",
    }
    settings = ("supervised",)

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, adapter: bool = False, width: int = 256,
        visual_width: int = 512, audio_width: int = 128, hidden: int = 1024, alpha: float = 0.3, beta: float = 0.05,
        gate_alpha: float = 0.1, gamma: float = 0.3, squash_twice: bool = True, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        self.gamma, self.squash_twice = gamma, squash_twice
        visual_tokens, visual = _tokens(shapes["visual"])
        audio_tokens, audio = _tokens(shapes["audio"])
        if adapter and min(visual_tokens, audio_tokens) < 2:
            raise ValueError("adapter needs maps of both streams, not one vector per segment")
        self.adapter = adapter
        if adapter:
            self.adapt_visual = Adapter(visual_tokens, visual, audio_tokens, audio, alpha, beta, idle=idle)
            self.adapt_audio = Adapter(audio_tokens, audio, visual_tokens, visual, alpha, beta, idle=idle)
        self.into_visual = VisualInput(visual, visual_width, 0.2)
        self.into_audio = nn.Linear(audio, audio_width)
        self.recurrent = BiLSTMPair(audio_width, visual_width, width)
        self.suppress = Suppression(
            width, 2 * width, width, classes, hidden, hidden, gate_alpha, interact=False, idle=idle
        )  # fmt: skip
        self.head = SupervisedHead(width, classes)
        if idle:
            self.idle = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """As CMBS: `relevance` (B, T), `category` (B, classes), `gate` (B, T), `events` (B, classes)."""
        seen, heard = (
            x.flatten(2, -2) if x.dim() > 4 else positions(x) if x.dim() == 3 else x for x in (visual, audio)
        )
        if self.adapter:
            segments = seen.shape[1]
            seen, heard = seen.flatten(0, 1), heard.flatten(0, 1)
            (more_seen, weight_seen), (more_heard, weight_heard) = (
                self.adapt_visual(seen, heard),
                self.adapt_audio(heard, seen),
            )
            seen = (weight_seen[:, None] @ (seen + more_seen)).unflatten(0, (-1, segments)).squeeze(2)
            heard = (weight_heard[:, None] @ (heard + more_heard)).unflatten(0, (-1, segments)).squeeze(2)
        else:
            seen, heard = seen.mean(dim=2), heard.mean(dim=2)
        outputs = self.suppress(*self.recurrent(self.into_audio(heard), self.into_visual(seen)))
        relevance, category = self.head(outputs.pop("fused"))
        return outputs | {"relevance": relevance, "category": category + self.gamma * outputs["events"]}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        return suppression_losses(outputs, batch["labels"], self.squash_twice)

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["relevance"], "category": outputs["category"]}


def _tokens(shape: tuple[int, ...]) -> tuple[int, int]:
    """Tokens of one segment and their width."""
    count = 1
    for size in shape[1:-1]:
        count *= size
    return count, shape[-1]
