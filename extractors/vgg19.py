"""VGG-19 and VGG-19-BN pool5 maps: AVE 2018, CACE-Net 2024 and the clean defaults."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from torch import nn

from extractors.frame_encoder import FrameEncoder
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.weights import Weights

KERAS = Weights(
    name="vgg19-keras",
    file="vgg19_weights_tf_dim_ordering_tf_kernels.h5",
    url="https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels.h5",
    page="https://keras.io/api/applications/vgg/",
    licence_code="Apache-2.0",
    note="Keras states an MD5, cbe5617147190e668d6c5d5026f83318, and no SHA-256. The file without the top, MD5 "
    "253f8cb515780f3b799900260a226db6, holds the same convolutions and is accepted too.",
)
TORCHVISION = Weights(
    name="vgg19-torchvision",
    file="vgg19-dcbb9e9d.pth",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.vgg19.html",
    sha256="dcbb9e9d",
    licence_code="BSD-3-Clause",
    note="IMAGENET1K_V1: another training run than the Keras (Caffe) weights; its maps are another feature.",
)
TORCHVISION_BN = Weights(
    name="vgg19-bn-torchvision",
    file="vgg19_bn-c79401a0.pth",
    url="https://download.pytorch.org/models/vgg19_bn-c79401a0.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.vgg19_bn.html",
    sha256="c79401a0",
    licence_code="BSD-3-Clause",
    member="I_state_dict",
    note="IMAGENET1K_V1. A file fine-tuned with the CACE-Net code (key I_state_dict, numbered names) is accepted.",
)

_KERAS_LAYER = re.compile(r"(?:^|/)(block\d_conv\d)(?:/|_)")
_KERAS_TOP = re.compile(r"(?:^|/)(?:fc1|fc2|predictions)(?:/|_)")


class VGG19(FrameEncoder):
    """Frames to the (512, 7, 7) map after the fifth max pool: the 16 convolutions of VGG configuration E."""

    batch_normalised = False

    def build_network(self) -> nn.Module:
        from torchvision.models.vgg import cfgs, make_layers

        layers = make_layers(cfgs["E"], batch_norm=self.batch_normalised)
        return nn.Sequential(OrderedDict(features=layers))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 512, 7, 7) from (n, 3, 224, 224)."""
        return self.network(inputs)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of torchvision, of a Keras weight file, or numbered by a Sequential, to `features.*`.

        Layers behind the last pool are left out; they do not enter the feature.
        """
        if any(_KERAS_LAYER.search(key) for key in state):
            return self._from_keras(state)
        renamed = {re.sub(r"^0\.(?=\d+\.)", "features.", key): value for key, value in state.items()}
        return {key: value for key, value in renamed.items() if not key.startswith("classifier.")}

    def _from_keras(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`block1_conv1/.../kernel` (height, width, in, out) to (out, in, height, width), layers in their order."""
        positions = [i for i, layer in enumerate(self.network.features) if isinstance(layer, nn.Conv2d)]
        names = sorted({match[1] for key in state if (match := _KERAS_LAYER.search(key))})
        place = dict(zip(names, positions, strict=False))
        converted = {}
        for key, value in state.items():
            match = _KERAS_LAYER.search(key)
            if match and match[1] in place:
                kind = "weight" if value.ndim == 4 else "bias"
                kernel = value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
                converted[f"features.{place[match[1]]}.{kind}"] = kernel
            elif not _KERAS_TOP.search(key):
                converted[key] = value
        return converted


class VGG19BN(VGG19):
    """VGG-19 with batch normalisation after every convolution."""

    batch_normalised = True


_SQUASH_CAFFE = ("squash size=224 filter=cv2-bilinear", "bgr", "subtract mean=caffe")
_PRESET = ("shorter size=256 filter=pil-bilinear", "crop size=224", "unit", "standardize by=imagenet")


def _spec(
    encoder: str, recipe: str, layer: str, preprocess: tuple[str, ...], grid: Grid, sampler: FrameSampler
) -> FeatureSpec:
    return FeatureSpec(
        encoder=encoder,
        recipe=recipe,
        modality="visual",
        layer=layer,
        preprocess=preprocess,
        postprocess=("mean over frames", "channels last"),
        grid=grid,
        sampler=sampler,
        shape=(7, 7, 512),
    )


_CENTRES = FrameSampler("centres", per_row=1)
_MIDDLE = "The frame at the middle of the row: four a row cost four times as much."
_TENTHS = FrameSampler("tenths", per_row=16)
_TEN = Grid(1.0, 1.0, count=10)

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec("vgg19", "default", "features.36", _PRESET, Grid(1.0, 1.0), _CENTRES),
        TORCHVISION,
        "clave; network of Simonyan and Zisserman 2015, preprocessing of the checkpoint",
        (_MIDDLE,),
    ),
    Recipe(
        _spec("vgg19", "ave2018", "block5_pool", _SQUASH_CAFFE, _TEN, _TENTHS),
        KERAS,
        "Tian et al., ECCV 2018; YapengTian/AVE-ECCV18@93f843f, sampling and resize as in attention_visualization.py",
        (
            "The authors' script archive is not public; the script is reconstructed from public copies of it.",
            "The mean over 16 frames is taken in double precision and stored as float32; the released file is float64.",
        ),
    ),
    Recipe(
        _spec("vgg19-bn", "default", "features.52", _PRESET, Grid(1.0, 1.0), _CENTRES),
        TORCHVISION_BN,
        "clave; network of Simonyan and Zisserman 2015, preprocessing of the checkpoint",
        (_MIDDLE,),
    ),
    Recipe(
        _spec("vgg19-bn", "cace2024", "features.52", _PRESET, _TEN, _TENTHS),
        TORCHVISION_BN,
        "CACE-Net, ACM MM 2024; Brain-Cog-Lab/CACE-Net@db43f60",
        (
            "The frame preprocessing is not published; the checkpoint's own preset is taken.",
            "The extraction script of this network is not published; the mean over 16 frames is that of ResNet-50.",
            "The fine-tuned weights are not published: `pretrained` is the file that fine-tuning starts from.",
        ),
    ),
)
