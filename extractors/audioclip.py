"""AudioCLIP: sound, picture and text in one space of 1024 numbers.

Sound goes through ESResNeXt-FBSP (`extractors.nets.esresnext`), pictures and text through CLIP RN50 as open_clip
builds it.  One checkpoint holds all three; each encoder keeps what it needs.

Source: Guzhov et al., "AudioCLIP", ICASSP 2022; AndreyGuzhov/AudioCLIP@45327aa.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from extractors.base import Encoder, MediaView
from extractors.clip import tokenize
from extractors.frame_encoder import FrameEncoder
from extractors.lazy_tower import LazyTower
from extractors.nets import clip_resnet
from extractors.nets.esresnext import ESResNeXt
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.waves import row_pieces
from extractors.weights import Weights

_PROMPTS_PER_BATCH = 32
_FULL_SCALE = 32_768.0
_SCALE = "scale by=32768"
_UNUSED = "audio.fbsp.bias"  # present in the published files, without elements


class SoundTower(nn.Module):
    """Audio tower and the logit scales of audio with images and with text, in the published key format."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = ESResNeXt()
        self.logit_scale_ai = nn.Parameter(torch.tensor(100.0).log())
        self.logit_scale_at = nn.Parameter(torch.tensor(100.0).log())


class PictureTower(nn.Module):
    """Image tower and the logit scale of images with text, in the published key format."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = clip_resnet.image_tower()
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())


class _WithText(Encoder):
    """`encode_text` and `logit_scale` of both encoders."""

    #: First part of the published names that belong to the encoder's own tower.
    _own: tuple[str, ...]
    _scale_name: str
    _text: LazyTower

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published keys of the encoder's own tower; the text tower's are kept, the third tower's left out."""
        names = {name: name.partition(".")[0] for name in state if name != _UNUSED}
        self._text.keep({name: state[name] for name, part in names.items() if part in clip_resnet.TEXT_NAMES})
        others = {*_PARTS, *clip_resnet.TEXT_NAMES} - set(self._own)
        return {name: state[name] for name, part in names.items() if part not in others}

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine with text in the published logits: the exponential, between 1 and 100."""
        return float(getattr(self.network, self._scale_name).detach().exp().clamp(1.0, 100.0))

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """(P, 1024) float32 rows of length 1, to be compared with normalised rows of either encoder.

        Raises:
            ValueError: a prompt is longer than 77 tokens.
            WeightsError: the checkpoint has no text tower.
        """
        tokens, tower = tokenize(prompts), self._text.get(self)
        with self.arithmetic(self.device):
            rows = torch.cat([tower(part.to(self.device)) for part in tokens.split(_PROMPTS_PER_BATCH)])
        return nn.functional.normalize(rows.float(), dim=-1)


_PARTS = ("audio", "visual", "logit_scale", "logit_scale_ai", "logit_scale_at")


class AudioClip(_WithText):
    """One second of samples to 1024 numbers, not normalised, as the published `encode_audio` gives them."""

    batch_rows = 8
    _own = ("audio", "logit_scale_ai", "logit_scale_at")
    _scale_name = "logit_scale_at"

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer != "audio.fc" or spec.preprocess[-1] != _SCALE:
            raise ValueError(f"layer must be audio.fc and preprocess end in {_SCALE!r}; found {spec}")
        self._text = LazyTower(clip_resnet.text_tower)

    def build_network(self) -> nn.Module:
        return SoundTower()

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, n) float32 samples in the range of 16-bit integers; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        pieces = row_pieces(self.spec.preprocess[:-1], media, segments)
        return torch.from_numpy(pieces.astype(np.float32) * np.float32(_FULL_SCALE))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 1024) from (B, n) samples."""
        return self.network.audio(inputs)


class AudioClipVisual(_WithText, FrameEncoder):
    """A frame to 1024 numbers, not normalised, as the published `encode_image` gives them."""

    _own = ("visual", "logit_scale")
    _scale_name = "logit_scale"

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer != "visual.attnpool":
            raise ValueError(f"layer {spec.layer!r} is not visual.attnpool")
        self._text = LazyTower(clip_resnet.text_tower)

    def build_network(self) -> nn.Module:
        return PictureTower()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 1024) from (n, 3, 224, 224)."""
        return self.network.visual(inputs)


def _checkpoint(kind: str, sha256: str, note: str) -> Weights:
    return Weights(
        name=f"audioclip-{kind.lower()}",
        file=f"AudioCLIP-{kind}-Training.pt",
        url=f"https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1/AudioCLIP-{kind}-Training.pt",
        page="https://github.com/AndreyGuzhov/AudioCLIP/releases/tag/v0.1",
        size_bytes=537_302_068,
        sha256=sha256,
        licence_code="MIT",
        note=note,
    )


FULL = _checkpoint(
    "Full",
    "2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
    "All three towers were trained on AudioSet. The licence of the weights is not stated apart from the code's.",
)
PARTIAL = _checkpoint(
    "Partial",
    "1921885b6c3b5de0619f2ef4a9700ecbade758a398b34eb064230c30baef0c75",
    "Only the audio tower was trained; images and text are CLIP RN50. No licence of the weights apart from the code's.",
)


def _sound(recipe: str) -> FeatureSpec:
    return FeatureSpec(
        encoder="audioclip",
        recipe=recipe,
        modality="audio",
        layer="audio.fc",
        preprocess=("decode rate=44100 channels=mean filter=soxr_hq", "cut", _SCALE),
        postprocess=(),
        grid=Grid(1.0, 1.0),
        sampler=None,
        shape=(clip_resnet.EMBEDDING,),
    )


def _picture(recipe: str) -> FeatureSpec:
    return FeatureSpec(
        encoder="audioclip-visual",
        recipe=recipe,
        modality="visual",
        layer="visual.attnpool",
        preprocess=("shorter size=224 filter=pil-bicubic", "crop size=224", "unit", "standardize by=clip"),
        postprocess=(),
        grid=Grid(1.0, 1.0),
        sampler=FrameSampler(),
        shape=(clip_resnet.EMBEDDING,),
    )


_SOUND_CHOICES = (
    "A row hears its own second and nothing else (77 frames). The published evaluation pads or crops to five seconds; "
    "DMSF uses AudioCLIP on AVE without saying how it cuts.",
    "Audio that ends before the last row is continued with silence.",
)
_PICTURE_CHOICES = ("The frame on screen at the middle of a second; no published recipe for these datasets.",)
_SOURCE = "clave; networks and front ends of Guzhov et al. 2022"

RECIPES: tuple[Recipe, ...] = (
    Recipe(_sound("default"), FULL, _SOURCE, _SOUND_CHOICES),
    Recipe(_sound("partial"), PARTIAL, _SOURCE, _SOUND_CHOICES),
    Recipe(_picture("default"), FULL, _SOURCE, _PICTURE_CHOICES),
    Recipe(_picture("partial"), PARTIAL, _SOURCE, _PICTURE_CHOICES),
)
