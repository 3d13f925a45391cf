"""VALOR, VALOR+ and VALOR++ (Lai et al. 2023): HAN with segment-level pseudo-labels from CLIP and CLAP.

The three differ by features, width and depth only, so they are three configurations of one network.
Source: paper and repository Franklin905/VALOR.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.base import Model, Shapes, tokens
from pipeline.models.han import STREAMS, VisualFusion, frame_width
from pipeline.models.parsing import HybridStack, MILHead, map_pooling, probability_loss

#: Vectors of a CLAP feature map: 2 frequency rows of 32 time steps, whatever the length of the clip.
MAP_TOKENS = 64


class AudioInput(nn.Module):
    """Projection of one vector per segment, or of a CLAP feature map brought to segments."""

    def __init__(self, shape: tuple[int, ...], segments: int, width: int) -> None:
        super().__init__()
        count, wide = tokens(shape)
        self.project = nn.Linear(wide, width)
        if count == segments:
            self.pooling = None
        elif count == MAP_TOKENS:
            self.register_buffer("pooling", map_pooling(count, segments), persistent=False)
        else:
            raise ValueError(
                f"stream 'audio' has {count} vectors of a clip: neither one for each of {segments} segments nor a CLAP "
                f"map of {MAP_TOKENS}; give a feature of one of these kinds with --audio"
            )

    def forward(self, audio: Tensor) -> Tensor:
        projected = self.project(audio.flatten(1, -2))
        return projected if self.pooling is None else self.pooling @ projected


class VALOR(Model):
    """Weakly supervised, with pseudo-labels.

    Args:
        shapes: of a clip: `audio` (T, A), or a CLAP map of 64 tokens; `visual` (n T, D); `motion` (T, M).
        classes: of the vocabulary.
        segments: T.
        width, heads, hidden, layers: of the hybrid attention; VALOR has 512 and 1 layer, VALOR+ and VALOR++ 256 and 4.
        pre_norm: an option of the public code.
        idle: also register the two final normalisations that the public code leaves unused.
    """

    task = "avvp"
    streams: ClassVar = STREAMS | {"audio": "one vector per segment, (T, A), or a CLAP feature map, (64, A)"}
    per_segment: ClassVar[tuple[str, ...]] = ("motion",)
    settings = ("weak",)
    needs_labels = True
    label_mask = "video-label"
    wants_segments: ClassVar[bool] = True

    def __init__(
        self, shapes: Shapes, classes: int, setting: str = "weak", *, segments: int = 10, width: int = 512,
        heads: int = 8, hidden: int = 1024, layers: int = 1, pre_norm: bool = False, idle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(setting)
        self.into_audio = AudioInput(shapes["audio"], segments, width)
        self.into_visual = VisualFusion(
            frame_width(shapes, segments), shapes["motion"][-1], width
        )  # fmt: skip
        self.hybrid = HybridStack(width, heads, hidden, layers, updated=True, pre_norm=pre_norm, idle=idle)
        self.head = MILHead(width, classes)

    def forward(self, audio: Tensor, visual: Tensor, motion: Tensor) -> dict[str, Tensor]:
        """As `MILHead`."""
        return self.head(*self.hybrid(self.into_audio(audio), self.into_visual(visual, motion)))

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Video against the weak label, segments against pseudo-labels; modalities have no video-level term."""
        return {
            "video": probability_loss(outputs["video"], batch["video_labels"]),
            "audio": F.binary_cross_entropy_with_logits(outputs["audio_logits"], batch["audio_pseudo"]),
            "visual": F.binary_cross_entropy_with_logits(outputs["visual_logits"], batch["visual_pseudo"]),
        }

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: outputs[name] for name in ("video", "audio", "visual")}
