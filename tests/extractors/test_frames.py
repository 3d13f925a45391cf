"""Frame steps against the libraries whose transforms the published code called."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from extractors import frames
from extractors.recipes import table
from extractors.resnet import RECIPES as RESNET

SIZES = [(240, 320), (321, 201), (100, 90), (720, 405)]
V1 = ("shorter size=256 filter=pil-bilinear", "crop size=224", "unit", "standardize by=imagenet")
CLIP = ("shorter size=224 filter=pil-bicubic", "crop size=224", "unit", "standardize by=clip")


def pictures(height: int, width: int, count: int = 2) -> np.ndarray:
    """(count, H, W, 3) uint8: gratings of every scale with noise, so that kernels cannot agree by chance."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    grating = np.sin((x + 2 * y)[..., None] ** 1.5 / 100 + np.arange(3))
    noisy = 128 + 90 * grating + rng.normal(0, 20, (count, height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def run(steps, decoded: np.ndarray) -> np.ndarray:
    return frames.apply(steps, torch.tensor(decoded)).numpy()


def channels_last(tensors) -> np.ndarray:
    return torch.stack(list(tensors)).movedim(1, -1).numpy()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("steps", "preset"),
    [
        (V1, models.ResNet152_Weights.IMAGENET1K_V1),
        (V1, models.VGG19_Weights.IMAGENET1K_V1),
        (V1, models.VGG19_BN_Weights.IMAGENET1K_V1),
        (RESNET[1].spec.preprocess, models.ResNet50_Weights.IMAGENET1K_V2),
    ],
    ids=["resnet152-v1", "vgg19", "vgg19-bn", "resnet50-v2"],
)
def test_presets_on_pil_are_exact(steps, preset, height, width):
    decoded = pictures(height, width)
    wanted = channels_last(preset.transforms()(Image.fromarray(picture)) for picture in decoded)
    np.testing.assert_array_equal(run(steps, decoded), wanted)


def test_the_two_resnet_presets_are_not_the_same():
    """Negative control: 232 against 256 gives the same shape."""
    decoded = pictures(240, 320)
    assert np.abs(run(V1, decoded) - run(RESNET[1].spec.preprocess, decoded)).max() > 0.5


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_equals_the_pil_processor(height, width):
    from transformers import CLIPImageProcessorPil

    decoded = pictures(height, width)
    # The defaults of the class are the published preprocessing; nothing is downloaded.
    wanted = CLIPImageProcessorPil()(list(decoded), return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(run(CLIP, decoded), wanted.movedim(1, -1).numpy(), rtol=0, atol=1e-6)
    bilinear = (CLIP[0].replace("bicubic", "bilinear"), *CLIP[1:])
    assert np.abs(run(bilinear, decoded) - wanted.movedim(1, -1).numpy()).max() > 0.1


def test_ave_squash_is_opencv_and_caffe_order():
    decoded = pictures(240, 320)
    wanted = np.stack([cv2.resize(picture, (224, 224)) for picture in decoded])
    wanted = wanted[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    steps = ("squash size=224 filter=cv2-bilinear", "bgr", "subtract mean=caffe")
    np.testing.assert_array_equal(run(steps, decoded), wanted)
    assert np.abs(run((steps[0], steps[2]), decoded) - wanted).max() > 50  # negative control: RGB
    antialiased = ("squash size=224 filter=pil-bilinear", *steps[1:])
    assert np.abs(run(antialiased, decoded) - wanted).max() > 5


@pytest.mark.parametrize(
    ("filter", "mode", "size"),
    [("tensor-bilinear", InterpolationMode.BILINEAR, 224), ("tensor-bicubic", InterpolationMode.BICUBIC, 192)],
)
def test_float_squash_is_torchvision_without_antialias(filter, mode, size):
    decoded = pictures(360, 640)
    unit = torch.stack([F.to_tensor(Image.fromarray(picture)) for picture in decoded])
    wanted = F.resize(unit, [size, size], interpolation=mode, antialias=False).movedim(1, -1).numpy()
    found = run(("unit", f"squash size={size} filter={filter}"), decoded)
    np.testing.assert_array_equal(found, wanted)
    smooth = F.resize(unit, [size, size], interpolation=mode, antialias=True).movedim(1, -1).numpy()
    assert np.abs(found - smooth).max() > 0.1
    if filter == "tensor-bicubic":
        assert found.max() > 1  # overshoot is kept


def test_llp_squash_for_r2plus1d():
    from torchvision import transforms

    decoded = pictures(240, 320)
    reference = transforms.Compose(
        [
            transforms.Resize((112, 112)),
            transforms.ToTensor(),
            transforms.Normalize([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]),
        ]
    )
    wanted = channels_last(reference(Image.fromarray(picture)) for picture in decoded)
    found = run(table()["r2plus1d:llp2020"].spec.preprocess, decoded)
    np.testing.assert_array_equal(found, wanted)


def test_video_preset_of_r2plus1d():
    decoded = pictures(240, 320, count=4)
    preset = models.video.R2Plus1D_18_Weights.KINETICS400_V1.transforms()
    wanted = preset(torch.from_numpy(decoded).movedim(-1, 1)).permute(1, 2, 3, 0).numpy()
    found = run(table()["r2plus1d"].spec.preprocess, decoded)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_split_keeps_the_order_and_cuts_behind_the_last_geometry():
    steps = ("unit", "squash size=8 filter=tensor-bilinear", "standardize by=clip")
    assert frames.split(steps) == (steps[:2], steps[2:])
    assert frames.split(("unit",)) == ((), ("unit",))
    geometry, values = frames.split(V1)
    decoded = pictures(300, 260)
    np.testing.assert_array_equal(run(values, run(geometry, decoded)), run(V1, decoded))


@pytest.mark.parametrize("entry", [entry for entry in table().values() if entry.spec.sampler], ids=lambda e: e.name)
def test_a_frame_does_not_depend_on_the_others(entry):
    decoded = pictures(60, 80, count=3)
    together = run(entry.spec.preprocess, decoded)
    np.testing.assert_array_equal(run(entry.spec.preprocess, decoded[1:2]), together[1:2])


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        (("sharpen",), "sharpen"),
        (("squash size=8 filter=nearest",), "nearest"),
        (("standardize by=mnist",), "mnist"),
        (("squash size=8 filter=tensor-bilinear",), "uint8"),
        (("unit", "squash size=8 filter=cv2-bilinear"), "float32"),
        (("crop size=400",), "does not fit"),
    ],
)
def test_steps_that_cannot_work_say_why(steps, complaint):
    with pytest.raises(ValueError, match=complaint):
        run(steps, pictures(32, 48))


def test_one_pixel_frames_are_resized():
    assert run(V1, pictures(1, 1)).shape == (2, 224, 224, 3)


@pytest.mark.parity
def test_llp_transforms_of_pretrainedmodels():
    utils = pytest.importorskip("pretrainedmodels.utils")

    class Settings:
        input_size, input_space, input_range = (3, 224, 224), "RGB", (0, 1)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    transform = utils.TransformImage(Settings())
    decoded = pictures(240, 320)
    wanted = channels_last(transform(Image.fromarray(picture)) for picture in decoded)
    np.testing.assert_array_equal(run(table()["resnet152:llp2020"].spec.preprocess, decoded), wanted)
