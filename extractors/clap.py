"""LAION-CLAP: audio embeddings in a space shared with text, and the token map before it is averaged.

The audio tower is HTS-AT, the text tower RoBERTa (`extractors.nets.clap`); both read the published laion_clap
checkpoints.  The text tower is four times the size of the audio tower and features never need it, so it is built when
the first prompt is encoded.

Source: Wu et al., "Large-scale contrastive language-audio pretraining", ICASSP 2023; LAION-AI/CLAP@1fd4c37.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from extractors import clap_mel
from extractors.base import Encoder, MediaView
from extractors.lazy_tower import LazyTower
from extractors.nets.clap import BUFFERS, AudioTower, TextTower, split_state
from extractors.nets.htsat import NETWORKS
from extractors.recipes import Recipe
from extractors.roberta import tokenize
from extractors.spec import FeatureSpec, Grid
from extractors.weights import Weights

_PROMPTS_PER_BATCH = 32


class Clap(Encoder):
    """Ten seconds of sound to 512 numbers (`layer` ends in `/projection`) or to a 64 x 768 map (`/tokens`)."""

    batch_rows = 8

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        network, _, self._readout = spec.layer.partition("/")
        if network not in NETWORKS or self._readout not in ("projection", "tokens"):
            raise ValueError(f"layer {spec.layer!r} is not one of {', '.join(NETWORKS)} with /projection or /tokens")
        self._network_name = network
        self._text = LazyTower(self.build_text, BUFFERS.pattern)

    def build_text(self) -> TextTower:
        """The text tower with arbitrary weights."""
        return TextTower()

    def tokenize(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both (P, 77) int64."""
        return tokenize(prompts)

    def build_network(self) -> nn.Module:
        return AudioTower(self._network_name)

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, n) samples, ten seconds of them; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        return clap_mel.collect(self.spec.preprocess, media, segments, self.spec.grid)

    def transform(self, collected: torch.Tensor) -> torch.Tensor:
        """(T, 1, 1001, 64) float32 decibel mel spectrograms."""
        return clap_mel.transform(self.spec.preprocess, collected)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 512) embeddings, or (B, 64, 768) tokens, from (B, 1, 1001, 64) spectrograms."""
        return self.network.tokens(inputs) if self._readout == "tokens" else self.network(inputs)

    def finish(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of length 1 where the recipe asks for it."""
        return nn.functional.normalize(rows, dim=-1) if "l2" in self.spec.postprocess else rows

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """laion_clap's keys -> the audio tower's; the text tower's part is kept for `encode_text`."""
        audio, text = split_state(state)
        self._text.keep(text if self._readout == "projection" else {})
        return audio

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in the published logits, exp(logit_scale_a)."""
        return float(self.network.logit_scale_a.detach().exp())

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """(P, 512) float32 rows of length 1, in the space of the audio rows.

        Raises:
            WeightsError: RoBERTa's vocabulary is missing, or the checkpoint has no text tower.
        """
        ids, mask = self.tokenize(prompts)
        return self.encode_tokens(ids, mask)

    @torch.inference_mode()
    def encode_tokens(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(P, 512) from (P, 77) RoBERTa token ids and their attention mask, padded with 1."""
        tower = self._text.get(self)
        batches = zip(ids.split(_PROMPTS_PER_BATCH), mask.split(_PROMPTS_PER_BATCH), strict=True)
        with self.arithmetic(self.device):
            rows = [tower(some.to(self.device), part.to(self.device)).float() for some, part in batches]
        return torch.cat(rows)


def _checkpoint(file: str, note: str = "") -> Weights:
    return Weights(
        name=file.removesuffix(".pt"),
        file=file,
        url=f"https://huggingface.co/lukewys/laion_clap/resolve/main/{file}",
        page="https://huggingface.co/lukewys/laion_clap",
        licence_code="CC0-1.0",
        member="state_dict",
        note=("Size and digest are not published. " + note).strip(),
    )


UNFUSED = _checkpoint("630k-audioset-best.pt", "The non-fusion default of laion_clap.")
UNFUSED_630K = _checkpoint("630k-best.pt", "Trained without AudioSet.")
FUSED = _checkpoint("630k-audioset-fusion-best.pt", "The fusion default of laion_clap.")
FUSED_630K = _checkpoint("630k-fusion-best.pt", "Trained without AudioSet; VALOR's model_id 2.")
MUSIC = _checkpoint("music_audioset_epoch_15_esc_90.14.pt", "Music and AudioSet.")
MUSIC_SPEECH = _checkpoint("music_speech_epoch_15_esc_89.25.pt", "Music and speech.")
MUSIC_SPEECH_AUDIOSET = _checkpoint("music_speech_audioset_epoch_15_esc_89.98.pt", "Music, speech and AudioSet.")

_DECODE = "decode rate=48000 channels=mean filter=soxr_hq"
_REPEAT = "repeat-pad samples=480000"
_SLANEY = "log-mel rate=48000 hop=480 bank=slaney norm=slaney window=1024 bands=64 low_hz=50 high_hz=14000"
_HTK = "log-mel rate=48000 hop=480 bank=htk norm=none window=1024 bands=64 low_hz=50 high_hz=14000"
_INTEGERS = "round-trip bits=16"
_FOUR = "channels count=4 longer=false"


def _spec(
    encoder: str, recipe: str, layer: str, place: str, fusion: bool, grid: Grid, shape: tuple[int, ...] = (512,)
) -> FeatureSpec:
    spectrogram = (_HTK, _FOUR) if fusion else (_SLANEY,)
    return FeatureSpec(
        encoder=encoder,
        recipe=recipe,
        modality="audio",
        layer=layer,
        preprocess=(_DECODE, place, _INTEGERS, *(() if place.startswith("reindex") else (_REPEAT,)), *spectrogram),
        postprocess=("l2",) if layer.endswith("/projection") else (),
        grid=grid,
        sampler=None,
        shape=shape,
    )


_OWN_SECOND = (
    "A row hears its own second, ten times over: the checkpoint's own repeat-pad to the ten seconds it was trained on, "
    "with nothing of the neighbouring seconds and no zeros at the end.",
    "Audio that ends before the last row is continued with silence.",
)
_LONG_PIECES = (
    "Pieces longer than ten seconds (clips over 100 s, none in LLP) keep their first 480,479 samples; the published "
    "code draws random chunks."
)
_VALOR = "Lai et al., VALOR, NeurIPS 2023; Franklin905/VALOR@2677da9, utils/clap_preprocess.py"
_SECONDS = Grid(1.0, 1.0)
_TEN_ROWS = Grid(1.0, 1.0, count=10)

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec("clap", "default", "htsat-tiny/projection", "cut", False, _SECONDS),
        UNFUSED,
        "clave; network and front end of Wu et al. 2023",
        _OWN_SECOND,
    ),
    Recipe(
        _spec("clap", "630k", "htsat-tiny/projection", "cut", False, _SECONDS),
        UNFUSED_630K,
        "clave; network and front end of Wu et al. 2023",
        _OWN_SECOND,
    ),
    Recipe(
        _spec("clap", "valor2023", "htsat-tiny-fusion/projection", "tenths", True, _TEN_ROWS),
        FUSED_630K,
        _VALOR,
        (
            "Pieces follow the decoded length L, not the grid: row t starts at sample round(t * L / 10).",
            _LONG_PIECES,
        ),
    ),
    Recipe(
        _spec("clap", "lsld2023", "htsat-tiny/projection", "tenths", False, _TEN_ROWS),
        UNFUSED,
        "Fan et al., LSLD, NeurIPS 2023; fyyCS/LSLD@d34c988 names the checkpoint and the (n, 512) features",
        (
            "The extraction script is not public: how the audio was cut is not established, and VALOR's ten pieces "
            "stand in for it.",
            _LONG_PIECES,
        ),
    ),
    Recipe(
        _spec("clap-fused", "default", "htsat-tiny-fusion/projection", "cut", True, _SECONDS),
        FUSED,
        "clave; network and front end of Wu et al. 2023",
        (*_OWN_SECOND, "A row is never longer than ten seconds, so the fusion branch stays off."),
    ),
    Recipe(
        _spec("clap-base", "default", "htsat-base/projection", "cut", False, _SECONDS),
        MUSIC_SPEECH_AUDIOSET,
        "clave; the music checkpoints of LAION-AI/CLAP@1fd4c37",
        _OWN_SECOND,
    ),
    Recipe(
        _spec("clap-base", "music", "htsat-base/projection", "cut", False, _SECONDS),
        MUSIC,
        "clave; the music checkpoints of LAION-AI/CLAP@1fd4c37",
        _OWN_SECOND,
    ),
    Recipe(
        _spec("clap-base", "music-speech", "htsat-base/projection", "cut", False, _SECONDS),
        MUSIC_SPEECH,
        "clave; the music checkpoints of LAION-AI/CLAP@1fd4c37",
        _OWN_SECOND,
    ),
    Recipe(
        _spec("clap-map", "default", "htsat-tiny/tokens", "cut", False, Grid(10.0, 10.0), (64, 768)),
        UNFUSED,
        "clave; network and front end of Wu et al. 2023",
        ("A row is ten whole seconds, the window of the checkpoint; a shorter clip is continued with silence.",),
    ),
    Recipe(
        _spec(
            "clap-map",
            "valor2023",
            "htsat-tiny-fusion/tokens",
            "reindex samples=480000",
            True,
            Grid(10.0, 10.0, count=1),
            (64, 768),
        ),
        FUSED_630K,
        _VALOR,
        ("One row stands for the whole clip, whatever its duration: it is squeezed or stretched to ten seconds.",),
    ),
)
