"""ResNets: published key formats through our loader, against torchvision and pretrainedmodels."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from extractors.base import build, load
from extractors.recipes import recipe
from extractors.spec import FrameSampler
from extractors.weights import WeightsError
from tests.extractors.fake_media import FakeMedia
from tests.extractors.visual import load_changed, moving_picture, random_state, relative_error, shapes_of

JPEGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips" / "BjCEufrlXm4_frames"


def bounded_state(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights in torchvision's keys; the last norm of a block is small, or 50 blocks would add up to 1e7."""
    state = random_state(shapes_of(network), seed)
    return {name: value * 0.3 if name.endswith("bn3.weight") else value for name, value in state.items()}


@pytest.fixture(scope="module")
def resnet50():
    network = models.resnet50(weights=None).eval()
    state = bounded_state(network)
    network.load_state_dict(state)
    return network, state


def test_cace2024_from_frames_to_rows(resnet50, tmp_path):
    """The published steps: 16 of 30 frames a second (here 2), PIL preset, Sequential without pool and classifier."""
    network, _ = resnet50
    children = torch.nn.Sequential(*list(network.children())[:-2])
    saved = OrderedDict(children.state_dict())
    assert len(saved) == 318
    assert list(saved)[-2] == "7.2.bn3.running_var"
    torch.save({"I_state_dict": saved}, tmp_path / "ckpt.pth.tar")
    media = moving_picture()
    encoder = load_changed("resnet50:cace2024", tmp_path / "ckpt.pth.tar", sampler=FrameSampler("tenths", per_row=2))
    found = encoder.encode(encoder.prepare(media, encoder.spec.grid.segments(10.0))[6:7])
    preset = models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    stack = torch.stack([preset(Image.fromarray(media.frames([index])[0])) for index in (180, 195)])
    with torch.inference_mode():
        maps = children(stack)
    assert found.shape == (1, 7, 7, 2048)
    wanted = maps.mean(dim=0).permute(1, 2, 0)
    assert relative_error(found[0], wanted) <= 1e-6
    assert relative_error(found[0].transpose(0, 1), wanted) > 1e-2  # negative control: height and width swapped


def test_the_plain_file_fits_every_resnet50(resnet50, tmp_path):
    network, state = resnet50
    torch.save(state, tmp_path / "resnet50.pth")
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for name in ("resnet50", "resnet50:cace2024"):
        encoder = load(name, weights=str(tmp_path / "resnet50.pth"))
        with torch.inference_mode():
            features = encoder.forward(pictures)
            maps = torch.nn.Sequential(*list(network.children())[:-2])(pictures)
            wanted = maps if name.endswith("2024") else network.avgpool(maps).flatten(1)
        assert torch.equal(features, wanted)
        assert encoder.parameters == 23_508_032


def test_numbered_keys_of_vgg_do_not_fit_resnet(resnet50, tmp_path):
    torch.save({"I_state_dict": {"0.0.weight": torch.zeros(64, 3, 3, 3)}}, tmp_path / "vgg.pth.tar")
    with pytest.raises(WeightsError, match=r"missing.*surplus"):
        load("resnet50:cace2024", weights=str(tmp_path / "vgg.pth.tar"))


@pytest.fixture(scope="module")
def resnet152_file(tmp_path_factory):
    """The 2018 format: `last_linear`, no `num_batches_tracked`."""
    with torch.device("meta"):
        network = models.resnet152(weights=None)
    state = bounded_state(network)
    published = {
        name.replace("fc.", "last_linear."): value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    path = tmp_path_factory.mktemp("resnet152") / "resnet152-b121ed2d.pth"
    torch.save(published, path)
    return path, state


def llp_media() -> FakeMedia:
    """The 82 official JPEGs where they are, else as many synthetic pictures."""
    paths = sorted(JPEGS.glob("*.jpg"))
    if not paths:
        return moving_picture()
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return FakeMedia(pictures=pictures, dumps={"jpeg-r8": pictures})


def test_llp2020_drops_the_20th_and_61st_of_82_pictures():
    spec = recipe("resnet152:llp2020").spec
    indices = build(spec).frame_indices(llp_media(), spec.grid.segments(10.0)).ravel()
    assert len(indices) == 80
    assert sorted(set(range(82)) - set(indices.tolist())) == [20, 61]


@pytest.mark.slow
def test_llp2020_equals_torchvision_up_to_its_pool(resnet152_file):
    path, state = resnet152_file
    network = models.resnet152(weights=None).eval()
    network.load_state_dict(state)
    network.fc = torch.nn.Identity()
    media = llp_media()
    encoder = load("resnet152:llp2020", weights=str(path))
    found = encoder.encode(encoder.prepare(media, encoder.spec.grid.segments(10.0)[20:21]))
    preset = models.ResNet152_Weights.IMAGENET1K_V1.transforms()
    stack = torch.stack([preset(Image.fromarray(media.frames([index], "jpeg-r8")[0])) for index in (21,)])
    with torch.inference_mode():
        wanted = network(stack)
    assert torch.equal(found, wanted)
    assert encoder.parameters == 58_143_808


@pytest.mark.parity
def test_llp2020_equals_pretrainedmodels(resnet152_file):
    """The package that the LLP extractor imports: its transform, its network, its keys."""
    reference = pytest.importorskip("pretrainedmodels")
    utils = pytest.importorskip("pretrainedmodels.utils")
    path, _ = resnet152_file
    network = reference.__dict__["resnet152"](num_classes=1000, pretrained=None).eval()
    network.input_space, network.input_range, network.input_size = "RGB", [0, 1], [3, 224, 224]
    network.mean, network.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    network.load_state_dict(torch.load(path, weights_only=True), strict=False)
    network.last_linear = torch.nn.Identity()
    transform = utils.TransformImage(network)
    media = llp_media()
    encoder = load("resnet152:llp2020", weights=str(path))
    prepared = encoder.prepare(media, encoder.spec.grid.segments(10.0)[40:42])
    pictures = [Image.fromarray(media.frames([index], "jpeg-r8")[0]) for index in (41, 42)]
    stack = torch.stack([transform(picture) for picture in pictures])
    assert torch.equal(encoder.pictures(prepared[:, 0]), stack)
    with torch.inference_mode():
        wanted, bgr = network(stack), network(stack.flip(1))
    assert torch.equal(encoder.encode(prepared), wanted)
    assert relative_error(bgr, wanted) > 1e-3  # negative control
