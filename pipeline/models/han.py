"""HAN (Tian et al. 2020): hybrid attention network with multimodal multiple-instance pooling.

Source: paper and repository YapengTian/AVVP-ECCV20.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.base import Model, Shapes, sequence, tokens
from pipeline.models.parsing import HybridStack, MILHead, mean_groups, probability_loss

STREAMS = {
    "audio": "one vector per segment, (T, A)",
    "visual": "frame vectors, a whole number per segment, (n T, D)",
    "motion": "one vector per segment from a video network, (T, M); a map (T, H, W, M) is averaged",
}


class VisualFusion(nn.Module):
    """Frame features averaged per segment, joined with motion features."""

    def __init__(self, visual: int, motion: int, width: int) -> None:
        super().__init__()
        self.visual = nn.Linear(visual, width)
        self.motion = nn.Linear(motion, width)
        self.fuse = nn.Linear(2 * width, width)

    def forward(self, visual: Tensor, motion: Tensor) -> Tensor:
        seen = self.visual(visual.flatten(1, -2))
        motion = motion.flatten(2, -2).mean(dim=2) if motion.dim() > 3 else motion
        return self.fuse(torch.cat([mean_groups(seen, motion.shape[1]), self.motion(motion)], dim=2))


def frame_width(shapes: Shapes, segments: int) -> int:
    """Width of the frame stream.

    Raises:
        ValueError: its frames cannot be divided among the segments.
    """
    count, width = tokens(shapes["visual"])
    if count % segments:
        raise ValueError(f"stream 'visual' has {count} frames of a clip, no multiple of {segments} segments")
    return width


class HAN(Model):
    """HAN, weakly supervised.

    Args:
        shapes: of a clip: `audio` (T, A), `visual` (n T, D) or (T, n, D), `motion` (T, M).
        classes: of the vocabulary; there is no background class.
        segments: T.
        smoothing_audio, smoothing_visual: a weak label y becomes s y + (1 - s) / 2 as target of one modality.
        idle: also register the three encoders and four normalisations that the public code leaves unused.
    """

    task = "avvp"
    streams: ClassVar = STREAMS
    per_segment: ClassVar[tuple[str, ...]] = ("audio", "motion")
    settings = ("weak",)
    wants_segments: ClassVar[bool] = True

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "weak", *, segments: int = 10, width: int = 512,
        heads: int = 1, hidden: int = 512, layers: int = 1, smoothing_audio: float = 1.0,
        smoothing_visual: float = 0.9, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        self.smoothing = {"audio": smoothing_audio, "visual": smoothing_visual}
        self.into_audio = nn.Linear(sequence(shapes["audio"], "audio"), width)
        self.into_visual = VisualFusion(
            frame_width(shapes, segments), shapes["motion"][-1], width
        )  # fmt: skip
        self.hybrid = HybridStack(width, heads, hidden, layers, updated=False, idle=idle)
        self.head = MILHead(width, classes)
        if idle:
            encoders = [nn.TransformerEncoderLayer(width, heads, hidden) for _ in range(3)]
            self.idle = nn.ModuleList([*encoders, nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, audio: Tensor, visual: Tensor, motion: Tensor) -> dict[str, Tensor]:
        """As `MILHead`."""
        return self.head(*self.hybrid(self.into_audio(audio), self.into_visual(visual, motion)))

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Cross-entropy of the video and of each modality, all against the weak label."""
        weak = batch["video_labels"]
        terms = {"video": probability_loss(outputs["video"], weak)}
        for modality, share in self.smoothing.items():
            terms[modality] = probability_loss(outputs[f"video_{modality}"], share * weak + (1 - share) * 0.5)
        return terms

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: outputs[name] for name in ("video", "audio", "visual")}
