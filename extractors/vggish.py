"""VGGish audio embeddings: AVE 2018, LLP 2020, UnAV 2023 and clean ones, at three points of the network.

All recipes share the log-mel front end and the network.  They differ in how the audio is cut into rows, and a shape
check cannot tell them apart: ten seconds give ten rows either way.
"""

from __future__ import annotations

import numpy as np
import torch

from extractors.base import Encoder, MediaView
from extractors.checkpoint import load_file
from extractors.download import fetch
from extractors.mel import VGGISH_SAMPLES, vggish_log_mel, vggish_log_mel_tensor
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

PCA = Weights(
    name="vggish-pca",
    file="vggish_pca_params.npz",
    url="https://github.com/v-iashin/video_features/raw/master/models/vggish/checkpoints/vggish_pca_params.npz",
    page="https://github.com/tensorflow/models/tree/master/research/audioset/vggish",
    size_bytes=73_020,
    sha256="4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d",
    licence_code="Apache-2.0",
    note="PCA of the AudioSet release as shipped in v-iashin/video_features; no licence of the numbers is stated.",
)

_LOG_MEL = "log-mel vggish"
_QUANTISED = (f"pca sha256:{PCA.sha256}", "clip 2", "8 bit truncated")
_LAYERS = ("fc2", "fc2.relu")


class VGGish(Encoder):
    """Log-mel patches of 0.96 s to 128 numbers.

    `spec.preprocess` is a list of `extractors.waves` steps that ends in `log-mel vggish`; `spec.layer` is `fc2` or
    `fc2.relu`; `spec.postprocess` is empty or the release's 8-bit whitening.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        problems = []
        if spec.layer not in _LAYERS:
            problems.append(f"layer {spec.layer!r} is none of {', '.join(_LAYERS)}")
        if spec.preprocess[-1:] != (_LOG_MEL,):
            problems.append(f"preprocess must end in {_LOG_MEL!r}, found {spec.preprocess}")
        if spec.postprocess not in ((), _QUANTISED):
            problems.append(f"postprocess is neither empty nor {_QUANTISED}")
        elif spec.postprocess and spec.layer != "fc2":
            problems.append(f"the whitening was fitted to layer 'fc2', not to {spec.layer!r}")
        if problems:
            raise ValueError("; ".join(problems))

    def build_network(self) -> torch.nn.Module:
        return VGGishNetwork(whitening=bool(self.spec.postprocess))

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, 15600) float64 samples; audio that ends early is continued with silence.

        Raises:
            NoAudio: the clip has no audio sample.
        """
        return torch.from_numpy(row_pieces(self.spec.preprocess[:-1], media, segments))

    def transform(self, collected: torch.Tensor) -> torch.Tensor:
        """(T, 1, 96, 64) float32 log-mel patches."""
        if collected.device.type != "cpu":
            return vggish_log_mel_tensor(collected)[:, None]
        return torch.from_numpy(vggish_log_mel(collected.numpy()))[:, None]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 128) before the last ReLU, from (B, 1, 96, 64) patches."""
        return self.network(inputs)

    def finish(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, 128) float32, or uint8 if quantised."""
        if self.spec.layer == "fc2.relu":
            rows = torch.relu(rows)
        return self.network.whitening(rows) if self.spec.postprocess else rows

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published keys are the network's; the whitening comes from a file of its own.

        Raises:
            extractors.weights.WeightsError: the whitening is asked for and its file cannot be had.
        """
        if not self.spec.postprocess:
            return state
        path, _ = fetch(PCA)
        return state | {f"whitening.{name}": value for name, value in load_file(path).items()}


def _spec(
    recipe: str,
    preprocess: tuple[str, ...],
    grid: Grid,
    layer: str = "fc2.relu",
    postprocess: tuple[str, ...] = (),
) -> FeatureSpec:
    return FeatureSpec(
        encoder="vggish",
        recipe=recipe,
        modality="audio",
        layer=layer,
        preprocess=(*preprocess, _LOG_MEL),
        postprocess=postprocess,
        grid=grid,
        sampler=None,
        shape=(128,),
        dtype="uint8" if postprocess else "float32",
    )


_SHORT = "Audio that ends before the last row is continued with silence; the published code stops with an error."

_START = (
    "A row's patch starts where its second starts: 0.975 s of samples, so no row hears its neighbour and "
    "audio and video rows share their starts. The last 25 ms of a second are not heard."
)
_CONTINUOUS = "The clip is resampled once, continuously, so there are no filter edges inside it."
_RESAMPY = "resampy's filter of today (0.4); the authors' version (0.2) differs by up to 0.44 in log-mel."
_BEFORE_RELU = (
    "Whitened before the last ReLU, where the release's parameters were fitted: 83 of its 128 means are negative. The "
    "torch port whitens after it."
)
_CLEAN = ("decode rate=16000 channels=mean filter=soxr_hq", f"cut samples={VGGISH_SAMPLES}")
_SECONDS = Grid(1.0, 1.0)

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec("default", _CLEAN, _SECONDS),
        VGGISH,
        "clave; network and front end of Hershey et al. 2017",
        (_START, _CONTINUOUS),
    ),
    Recipe(
        _spec("preactivation", _CLEAN, _SECONDS, layer="fc2"),
        VGGISH,
        "clave; network and front end of Hershey et al. 2017, read before the last ReLU",
        (_START, _CONTINUOUS),
    ),
    Recipe(
        _spec("pca8", _CLEAN, _SECONDS, layer="fc2", postprocess=_QUANTISED),
        VGGISH,
        "clave; post-processing of the AudioSet release, truncated to 8 bits as TensorFlow does",
        (_START, _CONTINUOUS, _BEFORE_RELU),
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
            _RESAMPY,
            _SHORT,
        ),
    ),
    Recipe(
        _spec(
            "llp2020",
            ("moviepy rate=16000", "cut", "mono", f"length samples={VGGISH_SAMPLES}"),
            Grid(1.0, 1.0, count=10),
        ),
        VGGISH,
        "Tian et al., ECCV 2020; YapengTian/AVVP-ECCV20@fde5611, extractor as copied in MCG-NJU/JoMoLD@a7dc2d5",
        (
            "moviepy 1.0.3, current when the set was published; its writer takes nearest samples instead of filtering.",
            _SHORT,
        ),
    ),
    Recipe(
        _spec(
            "unav2023",
            (
                "decode rate=file channels=all",
                "round bits=16",
                "mono",
                "resample rate=16000 filter=kaiser_best",
                f"cut samples={VGGISH_SAMPLES}",
            ),
            # 0.96 s of frame starts and the last frame's window: this gives the published row count exactly.
            Grid(VGGISH_SAMPLES / 16_000, 0.32),
        ),
        VGGISH,
        "Geng et al., CVPR 2023; ttgeng233/UnAV@1609deb issue 7, v-iashin/video_features@a2f61b7",
        (
            "Read after the last ReLU and not quantised, as video_features does; the version of 2023 is not known.",
            "The clip's own timeline: the published route copies the AAC stream out of the mp4, which keeps encoder "
            "priming that the container marks for removal, 1024 samples (23 ms) on many YouTube files.",
            _RESAMPY,
        ),
    ),
)
