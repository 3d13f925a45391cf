"""DMSF, **our build**: its repository holds a description without equations, code or numbers.

Stated there: AudioCLIP features behind an adapter of adjustable rate, audio-guided visual attention, Bi-LSTM with gated
self-attention in each modality (SNS), multi-head dual attention across modalities (CIC), a linear head, mutual learning
between the branches before and after fusion.  Everything else here is ours and may be replaced when a source appears.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.ave_targets import category_loss, relevance_loss, soft_margin
from pipeline.models.base import Model, Shapes, grid, positions, sequence
from pipeline.models.blocks import SupervisedHead, VisualInput, WeakHead, attention
from pipeline.models.cmbs import STREAMS
from pipeline.models.guidance import AudioGuidedAttention


class Adapter(nn.Module):
    """x + Wup ReLU(Wdown x), Wup zero at first; `rate` is how much narrower the inner layer is."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // rate)
        self.up = nn.Linear(width // rate, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x).relu())


class GatedSelfAttention(nn.Module):
    """SNS: Bi-LSTM, then LN(x + gate(x) * MHA(x, x, x))."""

    def __init__(self, wide: int, width: int, heads: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(wide, width // 2, batch_first=True, bidirectional=True)
        self.attention = attention(width, heads, 0.0)
        self.gate = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.recurrent(x)[0]
        return self.norm(x + self.gate(x).sigmoid() * self.attention(x, x, x)[0])


class DualAttention(nn.Module):
    """CIC: the product of both streams attends to both, then each stream attends to the result."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.fuse, self.norm_fuse = attention(width, heads, 0.0), nn.LayerNorm(width)
        self.visual, self.norm_visual = attention(width, heads, 0.0), nn.LayerNorm(width)
        self.audio, self.norm_audio = attention(width, heads, 0.0), nn.LayerNorm(width)

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        product, memory = visual * audio, torch.cat([audio, visual], dim=1)
        fused = self.norm_fuse(product + self.fuse(product, memory, memory)[0])
        visual = self.norm_visual(visual + self.visual(visual, fused, fused)[0])
        return visual, self.norm_audio(audio + self.audio(audio, fused, fused)[0])


def segment_log_distribution(relevance: Tensor, category: Tensor, classes: int) -> Tensor:
    """(B, T, classes + 1) log-probabilities: events share s(r_t), background has the rest."""
    events = relevance.sigmoid()[:, :, None] * category.softmax(dim=1)[:, None, :classes]
    return torch.cat([events, 1 - events.sum(dim=2, keepdim=True)], dim=2).clamp(min=1e-7).log()


class DMSF(Model):
    """Two branches, before and after fusion, that teach each other; the second one predicts.

    Args:
        shapes: of a clip: `visual` (T, H, W, D), `audio` (T, A).
        classes: event classes without background.
        rate: of the adapters on both inputs; 0 for none.
        mutual_weight, mutual_ramp: weight of the mutual loss, and epochs until it is reached.
    """

    task = "ave"
    streams: ClassVar = STREAMS
    settings = ("supervised", "weak")

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, width: int = 256, visual_width: int = 512,
        audio_width: int = 128, heads: int = 4, rate: int = 0, mutual_weight: float = 1.0, mutual_ramp: int = 10,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        _, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.classes, self.mutual_weight, self.mutual_ramp = classes, mutual_weight, mutual_ramp
        self.adapt_visual = Adapter(visual, rate) if rate else nn.Identity()
        self.adapt_audio = Adapter(audio, rate) if rate else nn.Identity()
        self.into_visual = VisualInput(visual, visual_width, 0.2)
        self.into_audio = nn.Linear(audio, audio_width)
        self.guide = AudioGuidedAttention(visual_width, audio_width, visual_width // 2)
        self.own_visual = GatedSelfAttention(visual_width, width, heads)
        self.own_audio = GatedSelfAttention(audio_width, width, heads)
        self.across = DualAttention(width, heads)
        if setting == "supervised":
            self.heads = nn.ModuleList([SupervisedHead(width, classes) for _ in range(2)])
        else:
            self.heads = nn.ModuleList([WeakHead(width, classes + 1) for _ in range(2)])

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """For each branch b in 1, 2: `relevance_b`, `category_b` and, if weak, `video_b`."""
        heard = self.into_audio(self.adapt_audio(audio))
        seen = self.guide(self.into_visual(self.adapt_visual(positions(visual))), heard)
        seen, heard = self.own_visual(seen), self.own_audio(heard)
        later_seen, later_heard = self.across(seen, heard)
        outputs = {}
        for branch, fused in enumerate(((seen + heard) / 2, (later_seen + later_heard) / 2), start=1):
            names = (f"relevance_{branch}", f"category_{branch}", f"video_{branch}")
            outputs |= dict(zip(names, self.heads[branch - 1](fused), strict=False))
        return outputs

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        terms = {}
        for branch in (1, 2):
            if self.setting == "weak":
                terms[f"video_{branch}"] = soft_margin(outputs[f"video_{branch}"], batch["video_labels"])
            else:
                terms[f"relevance_{branch}"] = relevance_loss(outputs[f"relevance_{branch}"], batch["labels"])
                terms[f"category_{branch}"] = category_loss(outputs[f"category_{branch}"], batch["labels"])
        first, second = (
            segment_log_distribution(outputs[f"relevance_{b}"], outputs[f"category_{b}"], self.classes).flatten(0, 1)
            for b in (1, 2)
        )
        mutual = sum(
            F.kl_div(student, teacher.detach(), reduction="batchmean", log_target=True)
            for student, teacher in ((first, second), (second, first))
        )
        ramp = min(1.0, (epoch + 1) / self.mutual_ramp) if self.mutual_ramp else 1.0
        terms["mutual"] = self.mutual_weight * ramp * mutual
        return terms

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["relevance_2"], "category": outputs["category_2"]}
