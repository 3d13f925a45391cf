"""Resizing by tensor arithmetic gives the very bytes of Pillow and OpenCV."""

import cv2
import numpy as np
import PIL
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from extractors import frames, resampling

# What the recipes make of frames between a thumbnail and strips of 4K, and cases at the edges of either algorithm.
CASES = [
    ((360, 640), (224, 398)), ((108, 1920), (22, 398)), ((240, 320), (256, 341)), ((405, 720), (112, 112)),
    ((480, 640), (128, 171)), ((720, 1280), (256, 455)), ((216, 3840), (22, 224)), ((37, 53), (224, 300)),
    ((1, 1), (224, 224)), ((224, 300), (224, 224)), ((300, 224), (224, 224)), ((448, 448), (224, 224)),
    ((448, 300), (224, 150)), ((448, 300), (224, 151)), ((7, 9), (8, 8)), ((224, 224), (224, 224)),
]  # fmt: skip


def pictures(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(3, H, W, 3) uint8: noise, black and white alone (where sums are largest), and a gradient."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    slope = np.broadcast_to(np.linspace(0, 255, height * width).reshape(height, width, 1), noise.shape)
    return np.stack([noise, np.where(noise > 127, 255, 0).astype(np.uint8), slope.astype(np.uint8)])


def pil(decoded: np.ndarray, height: int, width: int, filter: str) -> np.ndarray:
    """Rows first, whatever the installed release does of itself."""
    kernel = Image.Resampling[filter.upper()]
    narrowed = [Image.fromarray(picture).resize((width, decoded.shape[1]), kernel) for picture in decoded]
    return np.stack([np.asarray(picture.resize((width, height), kernel)) for picture in narrowed])


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("old", "new"), CASES, ids=str)
def test_pillow(old, new, filter):
    decoded = pictures(*old)
    found = resampling.pillow(torch.from_numpy(decoded), *new, filter)
    assert found.dtype == torch.uint8
    kernel = Image.Resampling[filter.upper()]
    wanted = np.stack([np.asarray(Image.fromarray(picture).resize(new[::-1], kernel)) for picture in decoded])
    np.testing.assert_array_equal(found.numpy(), wanted)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_tall_pictures_are_resized_as_every_release_before_13_did(filter):
    """Pillow 13 begins with the columns of them; rounding in between is then another."""
    decoded = pictures(640, 300)
    found = frames.apply((f"squash size=112 filter=pil-{filter}",), torch.from_numpy(decoded)).numpy()
    np.testing.assert_array_equal(found, pil(decoded, 112, 112, filter))
    np.testing.assert_array_equal(found, resampling.pillow(torch.from_numpy(decoded), 112, 112, filter).numpy())
    columns = resampling.pillow(torch.from_numpy(decoded), 112, 300, filter)
    other = resampling.pillow(columns, 112, 112, filter).numpy()
    assert (found != other).any()
    kernel = Image.Resampling[filter.upper()]
    today = np.stack([np.asarray(Image.fromarray(picture).resize((112, 112), kernel)) for picture in decoded])
    np.testing.assert_array_equal(today, other if int(PIL.__version__.split(".")[0]) >= 13 else found)


@pytest.mark.parametrize(("old", "new"), CASES, ids=str)
def test_opencv(old, new):
    decoded = pictures(*old)
    wanted = np.stack([cv2.resize(picture, new[::-1], interpolation=cv2.INTER_LINEAR) for picture in decoded])
    np.testing.assert_array_equal(resampling.opencv_bilinear(torch.from_numpy(decoded), *new).numpy(), wanted)


sides = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 99))
@example(3, 5, 90, 2, 0)
def test_any_size(height, width, new_height, new_width, seed):
    decoded = pictures(height, width, seed)
    tensor = torch.from_numpy(decoded)
    for filter in ("bilinear", "bicubic"):
        found = resampling.pillow(tensor, new_height, new_width, filter).numpy()
        np.testing.assert_array_equal(found, pil(decoded, new_height, new_width, filter))
    wanted = np.stack([cv2.resize(p, (new_width, new_height), interpolation=cv2.INTER_LINEAR) for p in decoded])
    np.testing.assert_array_equal(resampling.opencv_bilinear(tensor, new_height, new_width).numpy(), wanted)


def test_filters_are_told_apart():
    """Negative control."""
    tensor = torch.from_numpy(pictures(360, 640))
    bilinear, bicubic = (resampling.pillow(tensor, 224, 398, filter) for filter in ("bilinear", "bicubic"))
    assert (bilinear != bicubic).float().mean() > 0.1
    assert (bilinear != resampling.opencv_bilinear(tensor, 224, 398)).float().mean() > 0.1


def test_more_frames_than_are_resized_at_once_keep_their_order():
    decoded = np.concatenate([pictures(30, 40, seed) for seed in range(7)])
    found = resampling.pillow(torch.from_numpy(decoded), 16, 20, "bicubic").numpy()
    np.testing.assert_array_equal(found, pil(decoded, 16, 20, "bicubic"))


def test_sums_stay_where_single_precision_is_exact():
    """Bytes of 255 times each part of the coefficients; parts of at most 10 bits survive TF32's 11."""
    for old, new, filter in [(7680, 224, "bicubic"), (3840, 112, "bilinear"), (64, 224, "bicubic")]:
        matrix = resampling.pillow_coefficients(old, new, filter)
        assert abs(matrix.sum(axis=1) - 2**22).max() < 100
        for part in (matrix >> 14, (matrix >> 7) & 127, matrix & 127):
            assert np.abs(part).max() < 2**10
            assert np.abs(part).sum(axis=1).max() * 255 < 2**24
    with pytest.raises(ValueError, match="added exactly"):
        resampling.pillow_coefficients(30_000, 50, "bilinear")
