"""LINK (Wang et al.): VALOR++ with temporal-spatial attention, cross-modal gates, pseudo-label semantics and S-LOSS.

No public code exists.  Equations are the paper's; **ours** are: the order of the parts, the widths of the MLPs, the
layer inside the spatial attention (as printed its shapes do not fit), initial values, the features whose similarity
S-LOSS takes (after hybrid attention), the treatment of empty unions, and `label_loss="modalities"` (the printed L_label
is constant).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.base import Shapes
from pipeline.models.parsing import probability_loss
from pipeline.models.valor import VALOR


class TemporalSpatialAttention(nn.Module):
    """Equations 1 to 3: weights per segment from its mean and maximum, weights per channel likewise.

    The f^a in equation 3, printed for both streams, is read as the stream's own feature.
    """

    def __init__(self, segments: int) -> None:
        super().__init__()
        half = max(segments // 2, 1)
        self.segments = nn.Sequential(nn.Linear(segments, half), nn.ReLU(), nn.Linear(half, segments))
        self.channels = nn.Conv1d(2, 1, kernel_size=7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        in_time = (self.segments(x.mean(dim=2)) + self.segments(x.amax(dim=2))).sigmoid()
        x = x * in_time[:, :, None]
        in_space = self.channels(torch.stack([x.mean(dim=1), x.amax(dim=1)], dim=1)).sigmoid()
        return x * in_space


class CrossModalInteraction(nn.Module):
    """Equations 4 to 6: each stream adds what it attends to in the other, with learned strengths.

    The stream itself enters twice, as printed.
    """

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((2,), strength))
        self.beta = nn.Parameter(torch.ones(2))

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        likeness = audio @ visual.transpose(1, 2)
        heard = 2 * audio + self.alpha[1] * (likeness.softmax(dim=2) @ (self.beta[1] * visual))
        seen = 2 * visual + self.alpha[0] * (likeness.transpose(1, 2).softmax(dim=2) @ (self.beta[0] * audio))
        return heard, seen


class LabelSemantics(nn.Module):
    """Equations 13 to 17: scale and shift of a stream from the text embedding of its segment's pseudo-labels."""

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.Linear(text, width), nn.ReLU(), nn.Linear(width, width))
        self.shift = nn.Sequential(nn.Linear(text, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, meaning: Tensor) -> Tensor:
        return x * self.scale(meaning) + self.shift(meaning) + x


def meaning(labels: Tensor, text: Tensor) -> Tensor:
    """(B, T, D): mean embedding of a segment's labels (B, T, C); zero where it has none."""
    return labels @ text / labels.sum(dim=2, keepdim=True).clamp(min=1)


def similarity_weight(likeness: Tensor, mu: Tensor) -> Tensor:
    """Equation 11: 1 up to -0.2, E = exp(|1 - mu|) up to 0, from there linearly back to 1 at 1."""
    height = (1 - mu).abs().exp()
    return torch.where(
        likeness <= -0.2, torch.ones_like(likeness), torch.where(likeness < 0, height, height + (1 - height) * likeness)
    )


def event_overlap(audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, T) intersection over union of the event sets of all segment pairs, and where the union is not empty."""
    shared = audio @ visual.transpose(1, 2)
    union = audio.sum(dim=2)[:, :, None] + visual.sum(dim=2)[:, None, :] - shared
    return shared / union.clamp(min=1), union > 0


class LINK(VALOR):
    """LINK, weakly supervised; every addition has a switch, and all off is VALOR++.

    Pseudo-labels are an input as well (`--labels` made without the video label's mask), since they exist at test time;
    the losses take those that the video label allows, as VALOR's do (section II-D).

    Args:
        tsam: temporal-spatial attention with cross-modal interaction.
        s_loss: weighted similarity loss.
        plsim: semantics of pseudo-labels; the embeddings of the class names are set with `set_text`.
        text_audio, text_visual: widths of these embeddings, 512 for CLAP and 768 for CLIP ViT-L/14.
        mu: initial value; training pulls it to 1, where the weight does nothing, so it can be frozen.
        freeze_mu: keep `mu` as it is.
        label_loss: `modalities` compares pooled modality probabilities with the pseudo-labels' union over time;
            `printed` is the paper's constant, so no term at all.
        segment_loss: `mean` over segments (VALOR's scale) or `sum` (as printed).
    """

    label_mask = "none"
    label_inputs: ClassVar[tuple[str, ...]] = ("audio_pseudo", "visual_pseudo")

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "weak", *, segments: int = 10, width: int = 256,
        heads: int = 8, hidden: int = 1024, layers: int = 4, tsam: bool = True, s_loss: bool = True, plsim: bool = True,
        text_audio: int = 512, text_visual: int = 768, mu: float = 2.0, freeze_mu: bool = False,
        label_loss: str = "modalities", segment_loss: str = "mean", idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            shapes, classes, setting, segments=segments, width=width, heads=heads, hidden=hidden, layers=layers,
            idle=idle,
        )  # fmt: skip
        for name, value, known in (
            ("label_loss", label_loss, ("modalities", "printed")),
            ("segment_loss", segment_loss, ("mean", "sum")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, known are {' and '.join(known)}")
        self.segments, self.label_loss, self.segment_loss = segments, label_loss, segment_loss
        if tsam:
            self.attend_audio = TemporalSpatialAttention(segments)
            self.attend_visual = TemporalSpatialAttention(segments)
            self.interact = CrossModalInteraction()
        if plsim:
            self.mean_audio = LabelSemantics(text_audio, width)
            self.mean_visual = LabelSemantics(text_visual, width)
            self.register_buffer("text_audio", torch.zeros(classes, text_audio))
            self.register_buffer("text_visual", torch.zeros(classes, text_visual))
        if s_loss:
            self.mu = nn.Parameter(torch.tensor(float(mu)), requires_grad=not freeze_mu)
        self.tsam, self.plsim, self.s_loss = tsam, plsim, s_loss

    def set_text(self, audio: Tensor, visual: Tensor) -> None:
        """Embeddings of the class names, (C, text_audio) and (C, text_visual).

        Raises:
            ValueError: of another shape.
        """
        for name, value in (("text_audio", audio), ("text_visual", visual)):
            buffer = getattr(self, name)
            if value.shape != buffer.shape:
                raise ValueError(f"{name}: embeddings of shape {tuple(value.shape)}, expected {tuple(buffer.shape)}")
            buffer.copy_(value)

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor, audio_pseudo: Tensor, visual_pseudo: Tensor
    ) -> dict[str, Tensor]:
        """As `MILHead`, with `likeness` (B, T, T), the cosine of all pairs of an audio and a visual segment."""
        heard, seen = self.into_audio(audio), self.into_visual(visual, motion)
        if self.tsam:
            heard, seen = self.interact(self.attend_audio(heard), self.attend_visual(seen))
        heard, seen = self.hybrid(heard, seen)
        likeness = F.normalize(heard, dim=2) @ F.normalize(seen, dim=2).transpose(1, 2)
        if self.plsim:
            heard = self.mean_audio(heard, meaning(audio_pseudo, self.text_audio))
            seen = self.mean_visual(seen, meaning(visual_pseudo, self.text_visual))
        return self.head(heard, seen) | {"likeness": likeness}

    def watched(self) -> dict[str, float]:
        """`mu`: where it is 1, the weight of the similarity loss is 1 everywhere."""
        return {"mu": float(self.mu.detach())} if self.s_loss else {}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Equation 12, with the pseudo-labels of the loss: those of the input and the video label."""
        allowed = batch["video_labels"][:, None, :]
        batch = batch | {name: batch[name] * allowed for name in self.label_inputs}
        terms = super().losses(outputs, batch, epoch)
        if self.segment_loss == "sum":
            terms |= {name: terms[name] * self.segments for name in ("audio", "visual")}
        audio, visual = batch["audio_pseudo"], batch["visual_pseudo"]
        if self.label_loss == "modalities":
            terms["labels"] = probability_loss(outputs["video_audio"], audio.amax(dim=1)) + probability_loss(
                outputs["video_visual"], visual.amax(dim=1)
            )
        if self.s_loss:
            overlap, known = event_overlap(audio, visual)
            likeness = outputs["likeness"]
            squares = similarity_weight(likeness.detach(), self.mu) * (likeness - overlap) ** 2
            terms["similarity"] = (squares * known).sum() / known.sum().clamp(min=1)
        return terms
