"""Steps from decoded frames to network input, by the exact phrases of a spec's `preprocess`.

A step is `name key=value ...` and works on a (n, H, W, 3) tensor.  The phrases are part of the feature's key, so a
change of a step is another feature.  The resampling kernels are named after the library that defines them, because
they differ visibly (up to 0.7 of full scale on 1080p) and none of them can stand in for another.

    squash size=N filter=F         both sides to N, or height and width to HxW; aspect ratio not kept
    shorter size=N filter=F        shorter side to N, longer side int(N * long / short), as torchvision does
    crop size=N                    centre crop N x N
    unit                           float32, divided by 255
    bgr                            reversed channels
    subtract mean=M                float32 minus a mean: caffe
    standardize by=M               minus mean, divided by deviation: imagenet, clip, kinetics

    On a CPU the libraries themselves resize, on a GPU `extractors.resampling`, which gives the same bytes.

    F: cv2-bilinear (uint8, never antialiased), pil-bilinear and pil-bicubic (uint8, always antialiased),
       tensor-bilinear and tensor-bicubic (float32, antialias off, not clamped; stands after `unit`),
       tensor-bilinear-rounded (the same on uint8, rounded back, as torchvision's video presets do)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from extractors import resampling
from extractors.constants import kept

_MEANS = {"caffe": (103.939, 116.779, 123.68)}
_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "kinetics": ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}


def _cv2_bilinear(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if frames.device.type != "cpu":
        return resampling.opencv_bilinear(frames, height, width)
    import cv2

    made = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames.numpy()]
    return torch.from_numpy(np.stack(made))


def _pil(filter: str) -> Callable[[torch.Tensor, int, int], torch.Tensor]:
    def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
        # torchvision's uint8 tensor kernel is not Pillow's: it is off by one on 0.1 to 0.8 % of the values.
        if frames.device.type != "cpu":
            return resampling.pillow(frames, height, width, filter)
        from PIL import Image

        # Rows first, as in all releases before 13.0, with which every publication resized; since then tall pictures are
        # resized the other way round, which is a level more or less where a value is rounded between the two.
        kernel, old_height = Image.Resampling[filter.upper()], frames.shape[1]
        made = [
            np.asarray(Image.fromarray(frame).resize((width, old_height), kernel).resize((width, height), kernel))
            for frame in frames.numpy()
        ]
        return torch.from_numpy(np.stack(made))

    return resize


def _tensor(filter: str) -> Callable[[torch.Tensor, int, int], torch.Tensor]:
    def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
        planes = frames.permute(0, 3, 1, 2)
        made = torch.nn.functional.interpolate(
            planes, size=(height, width), mode=filter, align_corners=False, antialias=False
        )
        return made.permute(0, 2, 3, 1).contiguous()

    return resize


def _rounded(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return _tensor("bilinear")(frames.float(), height, width).round().to(torch.uint8)


_FILTERS: dict[str, tuple[torch.dtype, Callable[[torch.Tensor, int, int], torch.Tensor]]] = {
    "cv2-bilinear": (torch.uint8, _cv2_bilinear),
    "pil-bilinear": (torch.uint8, _pil("bilinear")),
    "pil-bicubic": (torch.uint8, _pil("bicubic")),
    "tensor-bilinear": (torch.float32, _tensor("bilinear")),
    "tensor-bicubic": (torch.float32, _tensor("bicubic")),
    "tensor-bilinear-rounded": (torch.uint8, _rounded),
}


def _resize(frames: torch.Tensor, height: int, width: int, filter: str) -> torch.Tensor:
    dtype, kernel = _FILTERS[filter]
    if frames.dtype != dtype:
        raise ValueError(f"filter {filter} works on {dtype}, not on {frames.dtype}: place it before or after `unit`")
    return kernel(frames, height, width)


def _squash(frames: torch.Tensor, size: str, filter: str) -> torch.Tensor:
    height, _, width = size.partition("x")
    return _resize(frames, int(height), int(width or height), filter)


def _shorter(frames: torch.Tensor, size: str, filter: str) -> torch.Tensor:
    height, width = frames.shape[1:3]
    short = int(size)
    longer = int(short * max(height, width) / min(height, width))
    height, width = (short, longer) if height <= width else (longer, short)
    return frames if (height, width) == tuple(frames.shape[1:3]) else _resize(frames, height, width, filter)


def _crop(frames: torch.Tensor, size: str) -> torch.Tensor:
    side = int(size)
    height, width = frames.shape[1:3]
    if min(height, width) < side:
        raise ValueError(f"a crop of {side} does not fit into {height}x{width}; resize the shorter side first")
    top, left = round((height - side) / 2), round((width - side) / 2)
    return frames[:, top : top + side, left : left + side].contiguous()


def _unit(frames: torch.Tensor) -> torch.Tensor:
    return frames.float() / 255


def _bgr(frames: torch.Tensor) -> torch.Tensor:
    return frames.flip(-1)


@kept
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)


def _subtract(frames: torch.Tensor, mean: str) -> torch.Tensor:
    return frames.float() - _constant(_MEANS[mean], frames.device)


def _standardize(frames: torch.Tensor, by: str) -> torch.Tensor:
    mean, deviation = (_constant(values, frames.device) for values in _STATISTICS[by])
    return (frames - mean) / deviation


_GEOMETRY: dict[str, Callable[..., torch.Tensor]] = {"squash": _squash, "shorter": _shorter, "crop": _crop}
_VALUES: dict[str, Callable[..., torch.Tensor]] = {
    "unit": _unit,
    "bgr": _bgr,
    "subtract": _subtract,
    "standardize": _standardize,
}
_KNOWN_SETTINGS = {"filter": _FILTERS, "mean": _MEANS, "by": _STATISTICS}


def parse(step: str) -> tuple[str, dict[str, str]]:
    """`"crop size=224"` -> `("crop", {"size": "224"})`.

    Raises:
        ValueError: the step, or a kernel or statistic that it names, is not known.
    """
    name, *settings = step.split()
    values = dict(setting.split("=", 1) for setting in settings)
    if name not in _GEOMETRY and name not in _VALUES:
        raise ValueError(f"frame step {step!r}: {name!r} is none of {', '.join([*_GEOMETRY, *_VALUES])}")
    for setting, value in values.items():
        if setting in _KNOWN_SETTINGS and value not in _KNOWN_SETTINGS[setting]:
            raise ValueError(f"frame step {step!r}: {value!r} is none of {', '.join(_KNOWN_SETTINGS[setting])}")
    return name, values


def split(steps: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Steps for `prepare`, up to the last one that moves pixels, and the steps on values alone for the device."""
    moves = [parse(step)[0] in _GEOMETRY for step in steps]
    cut = len(moves) - moves[::-1].index(True) if any(moves) else 0
    return tuple(steps[:cut]), tuple(steps[cut:])


def apply(steps: Sequence[str], frames: torch.Tensor) -> torch.Tensor:
    """Run steps in order.

    Args:
        steps: phrases as above.
        frames: (n, H, W, 3) uint8 RGB, or float32 where earlier steps have run.
    Returns:
        (n, H', W', 3) tensor.
    Raises:
        ValueError: a step that is not known or does not fit what stands before it.
    """
    for step in steps:
        name, settings = parse(step)
        frames = (_GEOMETRY.get(name) or _VALUES[name])(frames, **settings)
    return frames
