"""PANNs Cnn14 audio embeddings: CACE-Net 2024 and the clean default."""

from __future__ import annotations

import numpy as np
import torch

from extractors.base import Encoder, MediaView
from extractors.nets.cnn14 import RATE_HZ, Cnn14Network
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, Grid
from extractors.waves import row_pieces
from extractors.weights import Weights

CNN14 = Weights(
    name="cnn14",
    file="Cnn14_mAP=0.431.pth",
    url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
    page="https://zenodo.org/records/3987831",
    size_bytes=327_428_481,
    sha256="0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
    licence_code="MIT",
    member="model",
    note="The licence of the weights is not established.",
)

_LAYER = "fc1.relu"
_PREPROCESS = (f"decode rate={RATE_HZ} channels=mean filter=soxr_hq", "cut")
_NETWORK_STEPS = ("stft 1024 hop 320 reflect per row", "mel slaney 64 50-14000 Hz", "decibel amin 1e-10")


class Cnn14(Encoder):
    """One second of samples to 2048 numbers; spectrogram and mel filters are part of the network.

    `spec.preprocess` is a list of `extractors.waves` steps followed by the network's own front end.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        own = len(_NETWORK_STEPS)
        problems = []
        if spec.layer != _LAYER:
            problems.append(f"layer {spec.layer!r} is not {_LAYER}")
        if spec.preprocess[-own:] != _NETWORK_STEPS:
            problems.append(f"preprocess must end in {_NETWORK_STEPS}, found {spec.preprocess}")
        if spec.postprocess:
            problems.append(f"postprocess {spec.postprocess} is not known")
        if problems:
            raise ValueError("; ".join(problems))

    def build_network(self) -> torch.nn.Module:
        return Cnn14Network()

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, 32000) float32 samples; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        pieces = row_pieces(self.spec.preprocess[: -len(_NETWORK_STEPS)], media, segments)
        return torch.from_numpy(pieces.astype(np.float32))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 2048), not negative, from (B, 32000) samples."""
        return self.network(inputs)


def _spec(recipe: str, grid: Grid) -> FeatureSpec:
    return FeatureSpec(
        encoder="cnn14",
        recipe=recipe,
        modality="audio",
        layer=_LAYER,
        preprocess=(*_PREPROCESS, *_NETWORK_STEPS),
        postprocess=(),
        grid=grid,
        sampler=None,
        shape=(2048,),
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec("default", Grid(1.0, 1.0)),
        CNN14,
        "clave; network and front end of Kong et al. 2020",
        ("One second at a time, on the grid that all our defaults share; the network was trained on ten.",),
    ),
    Recipe(
        _spec("cace2024", Grid(1.0, 1.0, count=10)),
        CNN14,
        "He et al., CACE-Net, ACM MM 2024; Brain-Cog-Lab/CACE-Net@db43f60",
        (
            "librosa's default resampler since 0.10 (soxr_hq); the authors' version and their audio settings are "
            "not known.",
            "A clip shorter than 10 s is continued with silence; the published code stops with an error.",
            "Stored as float32, the network's own precision; the published file widens the same numbers to float64.",
        ),
    ),
)
