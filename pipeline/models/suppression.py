"""Background suppression of CMBS: what CMBS, CACE-Net and the head of DG-SCT do after their attention.

Source: Xia and Zhao 2022, repository marmot-xy/CMBS.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models import ave_targets
from pipeline.models.blocks import CrossDecoder, Interaction, TemporalEncoder, top_mean


class Suppression(nn.Module):
    """Encoders, cross decoders, time-level gates, event scores and, if asked, the two interactions.

    The gate of one modality amplifies the other's segments: x <- x (1 + alpha g).

    Args:
        audio, visual: widths of the two sequences.
        encoder_hidden, decoder_hidden: feed-forward widths.
        alpha: strength of the gates.
        interact: pass the two streams through B5 (CMBS, CACE-Net) or add them as they are (DG-SCT).
        idle: also register what the public code leaves unused.
    """

    def __init__(
        self, audio: int, visual: int, width: int, classes: int, encoder_hidden: int, decoder_hidden: int,
        alpha: float, heads: int = 4, interact: bool = True, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha = alpha
        self.encode_audio = TemporalEncoder(audio, width, encoder_hidden, heads, idle=idle)
        self.encode_visual = TemporalEncoder(visual, width, encoder_hidden, heads, idle=idle)
        self.decode_audio = CrossDecoder(audio, width, decoder_hidden, heads, idle=idle)
        self.decode_visual = CrossDecoder(visual, width, decoder_hidden, heads, idle=idle)
        self.gate_audio = nn.Linear(width, 1)
        self.gate_visual = nn.Linear(width, 1)
        self.events_audio = nn.Linear(width, classes)
        self.events_visual = nn.Linear(width, classes)
        self.interact = interact
        if interact or idle:
            self.interact_visual = Interaction(width, heads, 0.2)
            self.interact_audio = Interaction(width, heads, 0.2)

    def forward(self, audio: Tensor, visual: Tensor) -> dict[str, Tensor]:
        """Fused sequence, gate and event scores.

        Returns:
            `fused` (B, T, width); `gate` (B, T), the product of both gates, in 0..1; `events` (B, classes).
        """
        seen, heard = self.encode_visual(visual), self.encode_audio(audio)
        x_audio, x_visual = self.decode_audio(audio, seen), self.decode_visual(visual, heard)
        gate_audio, gate_visual = self.gate_audio(heard).sigmoid(), self.gate_visual(seen).sigmoid()
        x_visual = x_visual * (1 + self.alpha * gate_audio)
        x_audio = x_audio * (1 + self.alpha * gate_visual)
        events = (top_mean(self.events_visual(x_visual)) + top_mean(self.events_audio(x_audio))) / 2
        if self.interact:
            x_visual = self.interact_visual(x_visual, x_audio)
            x_audio = self.interact_audio(x_audio, x_visual)  # meets the visual stream already updated
        fused = (x_visual + x_audio) / 2
        return {"fused": fused, "gate": (gate_audio * gate_visual).squeeze(2), "events": events}


def suppression_losses(outputs: dict[str, Tensor], labels: Tensor, squash_twice: bool) -> dict[str, Tensor]:
    """The four terms of CMBS, all of weight 1.

    Args:
        outputs: with `relevance` (B, T) and `category` (B, classes) logits, and what `Suppression` returns.
        squash_twice: feed the gate, a probability already, to a with-logits loss, as the public code does.
    """
    bits = ave_targets.foreground(labels)
    gate = outputs["gate"]
    return {
        "relevance": ave_targets.relevance_loss(outputs["relevance"], labels),
        "category": ave_targets.category_loss(outputs["category"], labels),
        "gate": F.binary_cross_entropy_with_logits(gate, bits) if squash_twice else F.binary_cross_entropy(gate, bits),
        "events": ave_targets.category_loss(outputs["events"], labels),
    }
