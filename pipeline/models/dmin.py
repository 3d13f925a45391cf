"""CMRAN (Xu et al. 2020) and DMIN (Liu et al. 2022), which replaces three of its parts.

AGTA: triplet attention over channels, time and space.  DIMA: dense inter-modality attention (`blocks.DenseAttention`).
UDL: a second classifier on the visual encoding alone.  Sources: repositories FloretCat/CMRAN and weizequan/DMIN, folder
DIMN.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.ave_targets import category_loss, relevance_loss, soft_margin
from pipeline.models.base import Model, Shapes, grid, positions, sequence
from pipeline.models.blocks import CrossDecoder, Interaction, SupervisedHead, TemporalEncoder, VisualInput, WeakHead
from pipeline.models.cmbs import STREAMS
from pipeline.models.guidance import AudioGuidedAttention, ChannelAttention, pool


class TripletAttention(nn.Module):
    """AGTA: channel attention, then one spatial weight from a temporal and from a bilinear view.

    Args:
        factors: products that are summed to one channel of the bilinear view.
        epsilon: inside the square root, whose slope at 0 is infinite (our choice; the public code has none).
        idle: also register the two layers that the public code leaves unused (41,152 parameters).
    """

    def __init__(
        self, visual: int, audio: int, hidden: int, factors: int = 5, epsilon: float = 1e-12, idle: bool = False
    ) -> None:
        super().__init__()
        self.factors, self.epsilon = factors, epsilon
        self.channel = ChannelAttention(visual, audio, hidden)
        self.time_visual = nn.Linear(visual, hidden)
        self.time_audio = nn.Linear(audio, hidden)
        self.time = nn.LSTM(2 * hidden, hidden // 2, num_layers=2, batch_first=True, bidirectional=True)
        self.space_visual = nn.Linear(visual, factors * hidden)
        self.space_audio = nn.Linear(audio, factors * hidden)
        self.dropout = nn.Dropout(0.1)
        self.score = nn.Linear(hidden, 1)
        if idle:
            self.idle = nn.ModuleList([nn.Linear(visual, visual // 8), nn.Linear(visual // 8, audio)])

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """(B, T, D) from maps (B, T, P, D) and audio (B, T, A)."""
        visual = self.channel(visual, audio)
        batch, _, places, _ = visual.shape
        heard = self.time_audio(audio).relu()[:, :, None].expand(-1, -1, places, -1)
        pair = torch.cat([self.time_visual(visual).relu() + heard, heard], dim=3)
        in_time = self.time(pair.transpose(1, 2).flatten(0, 1))[0]
        in_time = in_time.unflatten(0, (batch, places)).transpose(1, 2)
        product = self.space_visual(visual).relu() * self.space_audio(audio).relu()[:, :, None]
        # The products are never negative, so the signed square root of the source is a plain one.
        summed = self.dropout(product).unflatten(3, (-1, self.factors)).sum(dim=4)
        in_space = F.normalize((summed + self.epsilon).sqrt() - self.epsilon**0.5, dim=3)
        return pool(self.score(in_time + in_space), visual)


class CMRAN(Model):
    """CMRAN, supervised or weak.

    Args:
        shapes: of a clip: `visual` (T, H, W, D), `audio` (T, A).
        classes: event classes without background.
        hidden: feed-forward width of encoders and decoders.
        interaction_heads: None for the published 4.
        idle: also register the layers that the public code leaves unused.
    """

    task = "ave"
    streams: ClassVar = STREAMS
    settings = ("supervised", "weak")
    dense: ClassVar[bool] = False
    attention: ClassVar[type[nn.Module]] = AudioGuidedAttention

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, width: int = 256, visual_width: int = 512,
        hidden: int = 2048, decoder_dropout: float = 0.1, interaction_heads: int = 4, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        _, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.into = VisualInput(visual, visual_width, 0.2)
        self.guide = self.attention(visual_width, audio, visual_width // 2, idle=idle)
        self.encode_visual = TemporalEncoder(visual_width, width, hidden, idle=idle)
        self.encode_audio = TemporalEncoder(audio, width, hidden, idle=idle)
        self.decode_visual = CrossDecoder(visual_width, width, hidden, 4, decoder_dropout, self.dense, idle)
        self.decode_audio = CrossDecoder(audio, width, hidden, 4, decoder_dropout, self.dense, idle)
        self.interact = Interaction(width, interaction_heads, 0.1)
        self.head = SupervisedHead(width, classes) if setting == "supervised" else WeakHead(width, classes + 1)

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`relevance` (B, T), `category` (B, classes [+ 1]); weak: `video` (B, classes + 1) probabilities."""
        attended = self.guide(self.into(positions(visual)), audio)
        seen, heard = self.encode_visual(attended), self.encode_audio(audio)
        x_audio, x_visual = self.decode_audio(audio, seen), self.decode_visual(attended, heard)
        outputs = dict(
            zip(("relevance", "category", "video"), self.head(self.interact(x_visual, x_audio)), strict=False)
        )
        return outputs | self.extra(seen)

    def extra(self, seen: Tensor) -> dict[str, Tensor]:
        """Outputs from the visual encoding alone."""
        return {}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        if self.setting == "weak":
            return {"video": soft_margin(outputs["video"], batch["video_labels"])}
        labels = batch["labels"]
        return {
            "relevance": relevance_loss(outputs["relevance"], labels),
            "category": category_loss(outputs["category"], labels),
        }

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["relevance"], "category": outputs["category"]}


class DMIN(CMRAN):
    """DMIN, supervised or weak; weights of its second loss term: 0.1 supervised, 0.08 weak."""

    dense: ClassVar[bool] = True
    attention: ClassVar[type[nn.Module]] = TripletAttention

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, width: int = 256,
        own_weight: float | None = None, decoder_dropout: float | None = None, interaction_heads: int | None = None,
        **options: float,
    ) -> None:  # fmt: skip
        weak = setting == "weak"
        super().__init__(
            shapes, classes, setting, width=width,
            decoder_dropout=(0.1 if weak else 0.02) if decoder_dropout is None else decoder_dropout,
            interaction_heads=(2 if weak else 4) if interaction_heads is None else interaction_heads,
            **options,
        )  # fmt: skip
        self.own_weight = (0.08 if weak else 0.1) if own_weight is None else own_weight
        self.own = WeakHead(width, classes + 1) if weak else nn.Linear(width, classes)

    def extra(self, seen: Tensor) -> dict[str, Tensor]:
        if self.setting == "weak":
            return {"own": self.own(seen)[2]}
        return {"own": self.own(seen.amax(dim=1))}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Published weights; in the weak setting the second term is a with-logits loss on probabilities."""
        terms, weight = super().losses(outputs, batch, epoch), self.own_weight
        if self.setting == "weak":
            own = F.binary_cross_entropy_with_logits(outputs["own"], batch["video_labels"])
            return {"video": (1 - weight) * terms["video"], "own": weight * own}
        own = category_loss(outputs["own"], batch["labels"])
        return terms | {"category": (1 - weight) * terms["category"], "own": weight * own}
