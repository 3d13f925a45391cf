"""R(2+1)D-18 on short stacks of frames: LLP 2020's snippets and the clean default."""

from __future__ import annotations

import torch
from torch import nn

from extractors.frame_encoder import FrameEncoder
from extractors.recipes import Recipe
from extractors.spec import FeatureSpec, FrameSampler, Grid
from extractors.weights import Weights

KINETICS = Weights(
    name="r2plus1d-18-torchvision",
    file="r2plus1d_18-91a641e6.pth",
    url="https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.video.r2plus1d_18.html",
    sha256="91a641e6",
    licence_code="BSD-3-Clause",
    note="KINETICS400_V1; that the 2020 features came from this very file is not established.",
)


class R2Plus1D(FrameEncoder):
    """The K frames of a row, as one stack, to 512 numbers: mean of `layer4` over time and space."""

    pictures_at_once = (32, 512)

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        if spec.layer != "avgpool" or "mean over frames" in spec.postprocess:
            raise ValueError(f"{spec.name}: the frames of a row are one stack, read out at avgpool without a mean")

    @property
    def items_per_row(self) -> int:
        """A row's frames are one stack."""
        return 1

    def build_network(self) -> nn.Module:
        from torchvision.models.video import r2plus1d_18

        network = r2plus1d_18(weights=None)
        network.fc = nn.Identity()
        return network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 512) from (n, 3, K, S, S) stacks."""
        return self.network(inputs)

    def encode_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(b, 512) from (b, K, S, S, 3) prepared rows."""
        stacks = self.pictures(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        return self.run(stacks.transpose(1, 2).contiguous())

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of torchvision; the classifier does not enter the feature."""
        return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _spec(recipe: str, preprocess: tuple[str, ...], grid: Grid, sampler: FrameSampler) -> FeatureSpec:
    return FeatureSpec(
        encoder="r2plus1d",
        recipe=recipe,
        modality="visual",
        layer="avgpool",
        preprocess=preprocess,
        postprocess=(),
        grid=grid,
        sampler=sampler,
        shape=(512,),
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        _spec(
            "default",
            (
                "squash size=128x171 filter=tensor-bilinear-rounded",
                "crop size=112",
                "unit",
                "standardize by=kinetics",
            ),
            Grid(1.0, 1.0),
            FrameSampler("centres", per_row=16),
        ),
        KINETICS,
        "clave; network of Tran et al. 2018, preprocessing of the checkpoint",
        ("Sixteen frames a row, the length that the checkpoint was trained with.",),
    ),
    Recipe(
        _spec(
            "llp2020",
            ("squash size=112 filter=pil-bilinear", "unit", "standardize by=kinetics"),
            Grid(1.0, 1.0, count=10),
            FrameSampler("spread", per_row=8, total=80, source="jpeg-r8"),
        ),
        KINETICS,
        "Tian et al., ECCV 2020; YapengTian/AVVP-ECCV20@fde5611",
        ("One row a second: a stack of 8 frames, the first of which the dump writes twice.",),
    ),
)
