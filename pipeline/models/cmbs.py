"""CMBS (Xia and Zhao 2022): cross-modal background suppression on time level and event level.

Source: paper and repository marmot-xy/CMBS.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pipeline.models.ave_targets import soft_margin
from pipeline.models.base import Model, Shapes, grid, positions, sequence
from pipeline.models.blocks import (
    BiLSTMPair,
    CrossDecoder,
    Interaction,
    SupervisedHead,
    TemporalEncoder,
    VisualInput,
    top_mean,
    video_probability,
)
from pipeline.models.guidance import CalibratedAttention
from pipeline.models.suppression import Suppression, suppression_losses

STREAMS = {"visual": "spatial map of a frame encoder, (T, H, W, D)", "audio": "one vector per segment, (T, A)"}


class CMBS(Model):
    """Fully supervised CMBS.

    Args:
        shapes: of a clip: `visual` (T, H, W, D), `audio` (T, A).
        classes: event classes without background.
        width: of the sequences.
        visual_width: of the map after the input layer.
        beta, alpha, gamma: self-calibration, gates, event scores.
        squash_twice: as the public code; the paper feeds the gate to a plain cross-entropy.
        idle: also register the layers that the public code leaves unused.
    """

    task = "ave"
    streams: ClassVar = STREAMS
    settings = ("supervised",)

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, width: int = 256, visual_width: int = 512,
        encoder_hidden: int = 1024, decoder_hidden: int = 1024, beta: float = 0.4, alpha: float = 0.1,
        gamma: float = 0.3, dropout: float = 0.2, squash_twice: bool = True, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        _, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.gamma, self.squash_twice = gamma, squash_twice
        self.into = VisualInput(visual, visual_width, dropout)
        self.guide = CalibratedAttention(visual_width, audio, visual_width // 2, beta, idle)
        self.recurrent = BiLSTMPair(audio, visual_width, width)
        self.suppress = Suppression(
            width, 2 * width, width, classes, encoder_hidden, decoder_hidden, alpha, idle=idle
        )  # fmt: skip
        self.head = SupervisedHead(width, classes)
        if idle:
            self.idle = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`relevance` (B, T), `category` (B, classes), `gate` (B, T), `events` (B, classes)."""
        attended = self.guide(self.into(positions(visual)), audio)
        outputs = self.suppress(*self.recurrent(audio, attended))
        relevance, category = self.head(outputs.pop("fused"))
        return outputs | {"relevance": relevance, "category": category + self.gamma * outputs["events"]}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        return suppression_losses(outputs, batch["labels"], self.squash_twice)

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["relevance"], "category": outputs["category"]}


class WeakCMBS(Model):
    """Weakly supervised CMBS: no LSTM, gates from the other stream, class activations gated by both modalities.

    The public evaluation squashes its gate, a probability, once more, so that every segment passes; here the gate
    itself is compared with 1/2, and scoring has a switch for the public behaviour.
    """

    task = "ave"
    streams: ClassVar = STREAMS
    settings = ("weak",)
    gate_is = "probabilities"

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "weak", *, width: int = 256, visual_width: int = 512,
        encoder_hidden: int = 2048, decoder_hidden: int = 1024, beta: float = 0.5, alpha: float = 0.2,
        gamma: float = 0.5, dropout: float = 0.1, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        _, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.alpha, self.gamma = alpha, gamma
        self.into = VisualInput(visual, visual_width, dropout)
        self.guide = CalibratedAttention(visual_width, audio, visual_width // 2, beta, idle)
        self.encode_visual = TemporalEncoder(visual_width, width, encoder_hidden, idle=idle)
        self.encode_audio = TemporalEncoder(audio, width, encoder_hidden, idle=idle)
        self.decode_visual = CrossDecoder(visual_width, width, decoder_hidden, idle=idle)
        self.decode_audio = CrossDecoder(audio, width, decoder_hidden, idle=idle)
        self.gate_audio = nn.Linear(width, 1)
        self.gate_visual = nn.Linear(width, 1)
        self.events_visual = nn.Linear(width, classes + 1)
        self.events_audio = nn.Linear(width, classes + 1)
        self.interact_visual = Interaction(width, 2, 0.2)
        self.interact_audio = Interaction(width, 2, 0.2)
        self.classify = nn.Linear(width, classes + 1, bias=False)
        if idle:
            self.idle = nn.Linear(width, 1)

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """`gate` (B, T) in 0..1, `category` (B, classes + 1), `video` (B, classes + 1) probabilities."""
        attended = self.guide(self.into(positions(visual)), audio)
        seen, heard = self.encode_visual(attended), self.encode_audio(audio)
        x_audio, x_visual = self.decode_audio(audio, seen), self.decode_visual(attended, heard)
        gate_audio, gate_visual = self.gate_audio(seen).sigmoid(), self.gate_visual(heard).sigmoid()
        x_visual = (1 - self.alpha) * x_visual + self.alpha * gate_audio * x_visual
        x_audio = (1 - self.alpha) * x_audio + self.alpha * gate_visual * x_audio
        support = self.gamma * (self.events_visual(x_visual).sigmoid() + self.events_audio(x_audio).sigmoid())
        x_visual = self.interact_visual(x_visual, x_audio)
        x_audio = self.interact_audio(x_audio, x_visual)
        category = top_mean(support * self.classify((x_visual + x_audio) / 2))
        gate = ((gate_audio + gate_visual) / 2).squeeze(2)
        return {"gate": gate, "category": category, "video": video_probability(gate, category)}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        return {"video": soft_margin(outputs["video"], batch["video_labels"])}

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["gate"], "category": outputs["category"]}
