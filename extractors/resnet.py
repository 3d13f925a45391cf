"""ResNet-50 and ResNet-152: LLP 2020's frame vectors, CACE-Net 2024's layer4 maps, and the clean defaults."""

from __future__ import annotations

import re

import torch
from torch import nn

from extractors.frame_encoder import FrameEncoder
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.weights import Weights

RESNET50_V2 = Weights(
    name="resnet50-torchvision-v2",
    file="resnet50-11ad3fa6.pth",
    url="https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html",
    sha256="11ad3fa6",
    licence_code="BSD-3-Clause",
    member="I_state_dict",
    note="IMAGENET1K_V2. A file fine-tuned with the CACE-Net code (key I_state_dict, numbered names) is accepted.",
)
RESNET152_V2 = Weights(
    name="resnet152-torchvision-v2",
    file="resnet152-f82ba261.pth",
    url="https://download.pytorch.org/models/resnet152-f82ba261.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet152.html",
    sha256="f82ba261",
    licence_code="BSD-3-Clause",
    note="IMAGENET1K_V2: not what LLP 2020 used.",
)
RESNET152_CADENE = Weights(
    name="resnet152-pretrainedmodels",
    file="resnet152-b121ed2d.pth",
    url="https://download.pytorch.org/models/resnet152-b121ed2d.pth",
    page="https://github.com/Cadene/pretrained-models.pytorch",
    sha256="b121ed2d",
    licence_code="BSD-3-Clause",
    note="As named by pretrainedmodels 0.7.4; whether its tensors equal resnet152-394f9c45.pth, which torchvision "
    "serves as IMAGENET1K_V1 today, is not established.",
)

# Names of a Sequential over the network's children, in which CACE-Net saves its fine-tuned tower.
_NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


class ResNet(FrameEncoder):
    """Frames to the (2048, 7, 7) map of `layer4`, or to the 2048 means of it over space (`avgpool`)."""

    depth: int

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer not in ("layer4", "avgpool"):
            raise ValueError(f"layer {spec.layer!r} is neither layer4 nor avgpool")

    def build_network(self) -> nn.Module:
        from torchvision import models

        network = getattr(models, f"resnet{self.depth}")(weights=None)
        network.fc = nn.Identity()
        if self.spec.layer == "layer4":
            network.avgpool = nn.Identity()
        return network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 2048, 7, 7) or (n, 2048) from (n, 3, 224, 224)."""
        features = self.network(inputs)
        # torchvision flattens behind the pool, whatever the pool is.
        return features.unflatten(1, (2048, inputs.shape[-2] // 32, -1)) if self.spec.layer == "layer4" else features

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of torchvision (`fc`), of pretrainedmodels (`last_linear`) or numbered by a Sequential."""
        converted = {}
        for key, value in state.items():
            first, _, rest = key.partition(".")
            if not re.match(r"(fc|last_linear)\.", key):
                converted[f"{_NUMBERED.get(first, first)}.{rest}"] = value
        return converted


class ResNet50(ResNet):
    """ResNet-50, 23,508,032 parameters without its classifier."""

    depth = 50


class ResNet152(ResNet):
    """ResNet-152, 58,143,808 parameters without its classifier."""

    depth = 152


def _preset(shorter: int) -> tuple[str, ...]:
    return (f"shorter size={shorter} filter=pil-bilinear", "crop size=224", "unit", "standardize by=imagenet")


def _clean(encoder: str) -> FeatureSpec:
    return FeatureSpec(
        encoder=encoder,
        recipe="default",
        modality="visual",
        layer="avgpool",
        preprocess=_preset(232),
        postprocess=("mean over frames",),
        grid=Grid(1.0, 1.0),
        sampler=FrameSampler("centres", per_row=1),
        shape=(2048,),
    )


_MIDDLE = "The frame at the middle of the row: four a row cost four times as much."
_OURS = "clave; network of He et al. 2016, preprocessing of the checkpoint"

RECIPES: tuple[Recipe, ...] = (
    Recipe(_clean("resnet50"), RESNET50_V2, _OURS, (_MIDDLE,)),
    Recipe(
        FeatureSpec(
            encoder="resnet50",
            recipe="cace2024",
            modality="visual",
            layer="layer4",
            preprocess=_preset(232),
            postprocess=("mean over frames", "channels last"),
            grid=Grid(1.0, 1.0, count=10),
            sampler=FrameSampler("tenths", per_row=16),
            shape=(7, 7, 2048),
        ),
        RESNET50_V2,
        "CACE-Net, ACM MM 2024; Brain-Cog-Lab/CACE-Net@db43f60",
        (
            "The published script always loads a fine-tuned file and no such file is published: `pretrained` is the "
            "file that fine-tuning starts from; pass one's own as --weights PATH.",
            "Frames are counted as they decode; the script trusts the container's count and fails if fewer decode.",
        ),
    ),
    Recipe(_clean("resnet152"), RESNET152_V2, _OURS, (_MIDDLE,)),
    Recipe(
        FeatureSpec(
            encoder="resnet152",
            recipe="llp2020",
            modality="visual",
            layer="avgpool",
            preprocess=_preset(256),
            postprocess=(),
            grid=Grid(0.125, 0.125, count=80),
            sampler=FrameSampler("spread", per_row=1, total=80, source="jpeg-r8"),
            shape=(2048,),
        ),
        RESNET152_CADENE,
        "Tian et al., ECCV 2020; YapengTian/AVVP-ECCV20@fde5611",
        (
            "Row k is written as [k/8, (k+1)/8] s; its picture is the k-th of 80 spread over the JPEG dump, "
            "which ffmpeg's -r 8 lets lag by about 0.15 s.",
        ),
    ),
)
