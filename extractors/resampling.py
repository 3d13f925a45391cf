"""Pillow's and OpenCV's resize on any device, bit for bit.

Both libraries resize bytes in integer arithmetic, so another order of adding changes nothing, and a GPU can give their
very pixels: a feature does not depend on where its frames were resized.

Source: Pillow's `Resample.c` (coefficients of 22 bits, rows first, rounded to bytes between the two passes) and
OpenCV's `resize` (`INTER_LINEAR`, coefficients of 11 bits); both equal to the installed libraries in tests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
import torch

from extractors.constants import kept

_PIL_BITS = 22
# float32 holds integers below 2^24 exactly.  Coefficients go through a matrix product in three parts of 9, 7 and 7
# bits: the sums of products of bytes and parts stay below that up to this many taps, and no part has more bits than
# TF32 keeps, so that nobody's setting of it changes a pixel.
_PART_BITS = 7
_MOST_TAPS = 2**24 // (255 << _PART_BITS)
_CV2_BITS = 11
# Frames of 1920 x 1080 take 25 MB each in single precision.
_FRAMES = 8


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    x, a = np.abs(distance), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


# Filter -> function of the distance in (scaled) pixels, and where it ends.
_PIL_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}


def pillow_coefficients(old: int, new: int, filter: str) -> np.ndarray:
    """(new, old) int64: how much of each old pixel a new one takes, in 1 / 2^22.

    Raises:
        ValueError: so many old pixels for a new one that the sums would not be exact.
    """
    function, reach = _PIL_FILTERS[filter]
    scale = old / new
    stretch = max(scale, 1.0)
    matrix = np.zeros((new, old), dtype=np.int64)
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), old)
        if last - first > _MOST_TAPS:
            raise ValueError(
                f"{old} pixels to {new}: {last - first} for one, at most {_MOST_TAPS} can be added exactly"
            )
        weights = function((np.arange(first, last) - centre + 0.5) * (1.0 / stretch))
        # One after the other, as the library adds them: the last bit decides how a coefficient is rounded.
        total = functools.reduce(lambda added, weight: added + weight, weights.tolist(), 0.0)
        if total != 0.0:
            weights = weights / total
        scaled = weights * (1 << _PIL_BITS)
        matrix[place, first:last] = np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int64)
    return matrix


@kept
def _parts(old: int, new: int, filter: str, device: torch.device) -> tuple[tuple[int, torch.Tensor], ...]:
    """Coefficients as sums of parts: how far each is shifted, and (new, old) whole numbers in single precision."""
    matrix = pillow_coefficients(old, new, filter)
    mask = (1 << _PART_BITS) - 1
    parts = {2 * _PART_BITS: matrix >> 2 * _PART_BITS, _PART_BITS: matrix >> _PART_BITS & mask, 0: matrix & mask}
    return tuple((shift, torch.tensor(part, dtype=torch.float32, device=device)) for shift, part in parts.items())


def _rounded(products: Iterable[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Sums of bytes times coefficients, by part, rounded to bytes; still in single precision."""
    total = sum((part.to(torch.int32) << shift for shift, part in products), 1 << (_PIL_BITS - 1))
    return (total >> _PIL_BITS).clamp(0, 255).float()


def pillow(frames: torch.Tensor, height: int, width: int, filter: str) -> torch.Tensor:
    """What `PIL.Image.resize((width, height))` makes of each frame, rows first as in all releases before 13.0.

    Args:
        frames: (n, H, W, C) uint8, on any device.
        filter: `bilinear` or `bicubic`, both antialiased.
    Returns:
        (n, height, width, C) uint8 on the same device.
    Raises:
        ValueError: see `pillow_coefficients`.
    """
    old_height, old_width, channels = frames.shape[1:]
    made = []
    for some in frames.split(_FRAMES):
        planes = some.permute(0, 1, 3, 2).float()  # (n, H, C, W)
        if width != old_width:
            parts = _parts(old_width, width, filter, frames.device)
            planes = _rounded((shift, planes @ part.T) for shift, part in parts)
        rows = planes.flatten(2)  # (n, H, C * W)
        if height != old_height:
            parts = _parts(old_height, height, filter, frames.device)
            rows = _rounded((shift, part @ rows) for shift, part in parts)
        made.append(rows.unflatten(2, (channels, width)).permute(0, 1, 3, 2).to(torch.uint8))
    return torch.cat(made)


@kept
def _taps(old: int, new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(new,) each: the two old pixels of a new one, within the picture, and the second's share in 1 / 2^11 (int32)."""
    centres = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.int64)
    share = np.rint((centres - first.astype(np.float32)) * np.float32(1 << _CV2_BITS)).astype(np.int32)
    found = np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), share
    return tuple(torch.from_numpy(part).to(device) for part in found)


def opencv_bilinear(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What `cv2.resize(frame, (width, height))` makes of each frame.

    Args:
        frames: (n, H, W, C) uint8, on any device.
    Returns:
        (n, height, width, C) uint8 on the same device.
    """
    old_height, old_width = frames.shape[1:3]
    if (old_height, old_width) == (height, width):
        return frames.clone()
    if (old_height, old_width) == (2 * height, 2 * width):  # the library takes the mean of four instead
        values = frames.to(torch.int32)
        total = values[:, ::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, ::2] + values[:, 1::2, 1::2]
        return ((total + 2) >> 2).to(torch.uint8)
    one = 1 << _CV2_BITS
    left, right, share = _taps(old_width, width, frames.device)
    top, bottom, below = _taps(old_height, height, frames.device)
    share, below = share[:, None], below[:, None, None]
    made = []
    for some in frames.split(_FRAMES):
        rows = some[:, :, left].to(torch.int32) * (one - share) + some[:, :, right].to(torch.int32) * share
        rows = rows >> 4  # as its vector units do, which hold 16 bits
        mixed = ((rows[:, top] * (one - below)) >> 16) + ((rows[:, bottom] * below) >> 16)
        made.append(((mixed + 2) >> 2).to(torch.uint8))
    return torch.cat(made)
