"""CACE-Net (He et al. 2024): co-guidance attention and contrastive enhancement on the CMBS skeleton.

Where paper and code differ, the code is the default: the paper's own parameter and FLOP counts (13.12 M, 1.66 G) come
out only with the code's second self-attention, event-score layers and decoder widths.  `event_scores=False` gives the
paper's equations 11 and 12, `shared_attention=True` its figure.  Source: paper and repository Brain-Cog-Lab/CACE-Net.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models import ave_targets
from pipeline.models.base import Model, Shapes, grid, positions, sequence
from pipeline.models.blocks import BiLSTMPair, SupervisedHead, VisualInput
from pipeline.models.cmbs import STREAMS
from pipeline.models.contrast import segment_contrast
from pipeline.models.guidance import CalibratedAttention, SpatialSelfAttention, VisualGuidedAudio
from pipeline.models.suppression import Suppression, suppression_losses

#: Which modality guides which: `both` is AVCA; `audio` guides the video alone (CMBS's attention, the paper's
#: baseline); `visual` guides the audio alone; `none` averages the positions.
GUIDES = ("both", "audio", "visual", "none")


class Enhancer(nn.Module):
    """BECE: Q = ReLU(Linear), used for the contrast and added to the relevance input."""

    def __init__(self, width: int, sigma: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.sigma = sigma

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q(f), and unit vectors of Q(f) and of Q(f + noise), each (B, T, width)."""
        enhanced = self.layer(fused)
        disturbed = self.layer(fused + self.sigma * torch.randn_like(fused))
        return enhanced, F.normalize(enhanced, dim=2), F.normalize(disturbed, dim=2)


class VisualOnlyGuidance(nn.Module):
    """The ablation `visual`: mean over positions, audio guided by one self-attention of the video."""

    def __init__(self, visual: int, audio: int, psi: float, idle: bool = False) -> None:
        super().__init__()
        self.self_attention = SpatialSelfAttention(visual, visual // 4)
        self.audio = VisualGuidedAudio(visual, audio, psi, shared=True)
        if idle:
            half = visual // 2
            shapes = [(visual, visual), (audio, visual), (visual, half), (half, visual), (visual, half), (audio, half)]
            shapes += [(half, 1), (visual, half), (visual, half), (visual, half), (half, 1)]
            self.idle = nn.ModuleList([nn.Linear(wide, narrow) for wide, narrow in shapes])

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        return visual.mean(dim=2), self.audio(visual, audio, self.self_attention)


class CACENet(Model):
    """CACE-Net, fully supervised.

    Args:
        shapes: of a clip: `visual` (T, H, W, D), `audio` (T, A).
        classes: event classes without background.
        guide: one of `GUIDES`.
        contrast: switch of BECE.
        beta, psi: strength of self-calibration and of the visual guidance of the audio.
        alpha, gamma: of the gates and of the event scores.
        sigma, tau, lambda_, contrast_weight: noise, temperature, share of Q in the relevance input, loss weight.
        contrast_from: epoch, from 0, at which BECE starts; published: an eighth of all epochs.
        audio_width: width of the audio inside; another input width makes the audio input layer live, which the public
            code registers and bypasses.
        event_scores: the code's event-level scores; the paper's equations leave them out.
        shared_attention: the paper's single self-attention for both guidances.
        squash_twice: the code's with-logits loss on the gate, which is a probability already.
        idle: also register the layers that the public code leaves unused.
    """

    task = "ave"
    streams: ClassVar = STREAMS
    settings = ("supervised",)

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "supervised", *, guide: str = "both", contrast: bool = True,
        width: int = 256, visual_width: int = 512, audio_width: int = 128, encoder_hidden: int = 1024,
        decoder_hidden: int = 512, beta: float = 0.4, psi: float = 0.3, alpha: float = 0.1, gamma: float = 0.3,
        sigma: float = 0.1, tau: float = 0.01, lambda_: float = 0.6, contrast_weight: float = 1.0,
        contrast_from: int = 25, event_scores: bool = True, shared_attention: bool = False, squash_twice: bool = True,
        idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        if guide not in GUIDES:
            raise ValueError(f"guide is {guide!r}, known are {', '.join(GUIDES)}")
        _, visual = grid(shapes["visual"], "visual")
        audio = sequence(shapes["audio"], "audio")
        self.guide, self.contrast, self.contrast_from = guide, contrast, contrast_from
        self.gamma, self.tau, self.lambda_, self.contrast_weight = gamma, tau, lambda_, contrast_weight
        self.event_scores, self.squash_twice = event_scores, squash_twice
        self.contrasting = contrast
        self.into = VisualInput(visual, visual_width, 0.2)
        self.audio_into = nn.Linear(audio, audio_width) if audio != audio_width or idle else None
        self.bypass_audio_into = audio == audio_width
        if guide in ("both", "audio"):
            self.guide_visual = CalibratedAttention(visual_width, audio_width, visual_width // 2, beta, idle)
        if guide == "both":
            self.guide_audio = VisualGuidedAudio(visual_width, audio_width, psi, shared_attention, idle)
        if guide == "visual":
            self.guide_audio = VisualOnlyGuidance(visual_width, audio_width, psi, idle)
        self.recurrent = BiLSTMPair(audio_width, visual_width, width)
        self.suppress = Suppression(
            width, 2 * width, width, classes, encoder_hidden, decoder_hidden, alpha, idle=idle
        )  # fmt: skip
        self.head = SupervisedHead(width, classes)
        self.enhance = Enhancer(width, sigma) if contrast or idle else None

    def begin_epoch(self, epoch: int) -> None:
        """BECE starts at `contrast_from`; the loop calls this before every training epoch."""
        self.contrasting = self.contrast and epoch >= self.contrast_from

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """As CMBS, and with BECE the unit vectors `first` and `second` (B, T, width).

        In evaluation the enhanced feature joins as soon as training has switched it on.
        """
        maps = self.into(positions(visual))
        if self.audio_into is not None and not self.bypass_audio_into:
            audio = self.audio_into(audio)
        seen, heard = self._guided(maps, audio)
        outputs = self.suppress(*self.recurrent(heard, seen))
        fused = outputs.pop("fused")
        relevance, category = self.head(fused)
        if self.contrasting:
            enhanced, outputs["first"], outputs["second"] = self.enhance(fused)
            relevance = self.head.relevance(fused + self.lambda_ * enhanced).squeeze(2)
        if self.event_scores:
            category = category + self.gamma * outputs["events"]
        return outputs | {"relevance": relevance, "category": category}

    def _guided(self, maps: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        if self.guide == "none":
            return maps.mean(dim=2), audio
        if self.guide == "visual":
            return self.guide_audio(maps, audio)
        seen = self.guide_visual(maps, audio)  # by the audio as it came in
        if self.guide == "audio":
            return seen, audio
        return seen, self.guide_audio(maps, audio, self.guide_visual.self_attention)

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """CMBS's terms, and the contrast once it is on."""
        terms = suppression_losses(outputs, batch["labels"], self.squash_twice)
        if not self.event_scores:
            del terms["events"]
        if "first" in outputs:
            event = ave_targets.foreground(batch["labels"])
            contrast = segment_contrast(outputs["first"].float(), outputs["second"].float(), event, self.tau)
            terms["contrast"] = self.contrast_weight * contrast.mean()
        return terms

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"gate": outputs["relevance"], "category": outputs["category"]}
