"""VGGish audio embeddings: AVE 2018, LLP 2020, UnAV 2023 and the clean default.

All recipes share the log-mel front end and the network.  They differ in how the audio is cut into rows, and a shape
check cannot tell them apart: ten seconds give ten rows either way.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from extractors.base import Encoder, MediaView
from extractors.mel import VGGISH_SAMPLES, vggish_log_mel
from extractors.nets.vggish import VGGishNetwork
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, Grid
from extractors.waves import row_pieces
from extractors.weights import Weights

VGGISH = Weights(
    name="vggish",
    file="vggish-10086976.pth",
    url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    page="https://github.com/harritaylor/torchvggish",
    sha256="10086976",
    licence_code="Apache-2.0",
    note="A port of the AudioSet release's vggish_model.ckpt; the digest is the prefix in the file's name, "
    "and no licence of the weights is stated.",
)

_LOG_MEL = "log-mel vggish"


class VGGish(Encoder):
    """Log-mel patches of 0.96 s to 128 numbers.

    `spec.preprocess` is a list of `extractors.waves` steps that ends in `log-mel vggish`; `spec.layer` is `fc2.relu`.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer != "fc2.relu":
            raise ValueError(f"layer {spec.layer!r} is not fc2.relu")
        if spec.preprocess[-1] != _LOG_MEL:
            raise ValueError(f"preprocess must end in {_LOG_MEL!r}, found {spec.preprocess}")
        self.network = VGGishNetwork()

    def prepare(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, 1, 96, 64) float32 log-mel patches; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        pieces = row_pieces(self.spec.preprocess[:-1], media, segments)
        return torch.from_numpy(vggish_log_mel(pieces))[:, None]

    @torch.inference_mode()
    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, 128) from (B, 1, 96, 64) patches, without gradient."""
        with _precision(batch.device, self.spec.precision):
            embedding = self.network(batch)
        return torch.relu(embedding.float())


def _precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Autocast for the two half precisions, nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def _spec(recipe: str, preprocess: tuple[str, ...], grid: Grid) -> FeatureSpec:
    return FeatureSpec(
        encoder="vggish",
        recipe=recipe,
        modality="audio",
        layer="fc2.relu",
        preprocess=(*preprocess, _LOG_MEL),
        postprocess=(),
        grid=grid,
        sampler=None,
        shape=(128,),
    )


_SHORT = "Audio that ends before the last row is continued with silence; the published code stops with an error."

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec(
            "default",
            ("decode rate=16000 channels=mean filter=soxr_hq", f"cut samples={VGGISH_SAMPLES}"),
            Grid(1.0, 1.0),
        ),
        VGGISH,
        "clave; network and front end of Hershey et al. 2017",
        (
            "A row's patch starts where its second starts: 0.975 s of samples, so no row hears its neighbour and "
            "audio and video rows share their starts. The last 25 ms of a second are not heard.",
            "The clip is resampled once, continuously, so there are no filter edges inside it.",
        ),
    ),
    Recipe(
        _spec(
            "ave2018",
            (
                "decode rate=file channels=all",
                "cut",
                "round bits=16",
                "mono",
                "resample rate=16000 filter=kaiser_best",
                f"length samples={VGGISH_SAMPLES}",
            ),
            Grid(1.0, 1.0, count=10),
        ),
        VGGISH,
        "Tian et al., ECCV 2018; YapengTian/AVE-ECCV18@93f843f, extractor as copied in MCG-NJU/JoMoLD@a7dc2d5",
        (
            "Each second is cut at the file's own rate and resampled alone, as public copies of the modified "
            "vggish_input do; the authors' original script archive is not public.",
            "resampy's filter of today (0.4); the authors' version (0.2) differs by up to 0.44 in log-mel.",
            _SHORT,
        ),
    ),
    Recipe(
        _spec(
            "llp2020",
            (
                "decode rate=16000 channels=all filter=swr",
                "cut",
                "round bits=16",
                "mono",
                f"length samples={VGGISH_SAMPLES}",
            ),
            Grid(1.0, 1.0, count=10),
        ),
        VGGISH,
        "Tian et al., ECCV 2020; YapengTian/AVVP-ECCV20@fde5611, extractor as copied in MCG-NJU/JoMoLD@a7dc2d5",
        (_SHORT,),
    ),
)
