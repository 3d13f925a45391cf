"""VGG-19: published key formats through our loader, against torchvision and Keras."""

from collections import OrderedDict

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from extractors.base import NoVideo, build, load
from extractors.recipes import recipe
from extractors.spec import FrameSampler
from extractors.weights import WeightsError
from tests.extractors.fake_media import FakeMedia
from tests.extractors.visual import load_changed, moving_picture, random_state, relative_error

PLAN = [64, 64, "P", 128, 128, "P", *[256] * 4, "P", *[512] * 4, "P", *[512] * 4, "P"]
# Positions of the convolutions in torchvision's `features`, as published for vgg19.
POSITIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
BLOCKS = [(1, 1), (1, 2), (2, 1), (2, 2), *[(b, i) for b in (3, 4, 5) for i in (1, 2, 3, 4)]]


def convolutions() -> list[tuple[int, int]]:
    widths = [3, *[width for width in PLAN if width != "P"]]
    return list(zip(widths[1:], widths[:-1], strict=True))


def torchvision_state(seed: int = 0) -> dict[str, torch.Tensor]:
    shapes = {}
    for position, (outputs, inputs) in zip(POSITIONS, convolutions(), strict=True):
        shapes[f"features.{position}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{position}.bias"] = (outputs,)
    return random_state(shapes, seed)


def write_keras(path, state: dict[str, torch.Tensor]) -> None:
    """The layout of the published file: one group a layer, `<layer>_W_1:0` with height, width, in, out."""
    with h5py.File(path, "w") as file:
        for (block, number), position in zip(BLOCKS, POSITIONS, strict=True):
            layer = f"block{block}_conv{number}"
            group = file.create_group(layer)
            group[f"{layer}_W_1:0"] = state[f"features.{position}.weight"].permute(2, 3, 1, 0).numpy()
            group[f"{layer}_b_1:0"] = state[f"features.{position}.bias"].numpy()
        for layer in ("fc1", "fc2", "predictions"):
            file.create_group(layer)[f"{layer}_W_1:0"] = np.zeros((4, 4), np.float32)
        file.create_group("block1_pool")


@pytest.fixture(scope="module")
def state():
    return torchvision_state()


@pytest.fixture(scope="module")
def keras_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg19") / "vgg19_weights_tf_dim_ordering_tf_kernels.h5"
    write_keras(path, state)
    return path


@pytest.fixture(scope="module")
def reference(state):
    network = models.vgg19(weights=None, init_weights=False).features.eval()
    network.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    return network


def test_ave2018_from_frames_to_rows(keras_file, reference):
    """The published steps by hand, two of the sixteen frames a second, through the Keras file."""
    media = moving_picture()
    two = FrameSampler("tenths", per_row=2)
    encoder = load_changed("vgg19:ave2018", keras_file, sampler=two)
    segments = encoder.spec.grid.segments(10.0)
    found = encoder.encode(encoder.prepare(media, segments)[4:5])
    pictures = [cv2.resize(media.frames([index])[0], (224, 224)) for index in (120, 135)]
    caffe = np.stack(pictures)[..., ::-1].astype(np.float32) - np.float32([103.939, 116.779, 123.68])
    with torch.inference_mode():
        maps = reference(torch.from_numpy(caffe.transpose(0, 3, 1, 2).copy()))
        rgb = reference(torch.from_numpy(caffe[:1, ..., ::-1].transpose(0, 3, 1, 2).copy()))
    wanted = maps.numpy().transpose(0, 2, 3, 1).astype(np.float64).mean(axis=0)
    assert found.shape == (1, 7, 7, 512)
    assert found.dtype == torch.float32
    assert (wanted > 0).mean() > 0.3
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-5 * wanted.max())
    # Negative control: the same frames in RGB order are another feature.
    assert (rgb - maps[:1]).abs().max() > 0.05 * wanted.max()


def test_default_equals_torchvision_and_its_preset(state, reference, tmp_path):
    whole = {**state, "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    torch.save(whole, tmp_path / "vgg19.pth")
    media = moving_picture()
    encoder = load_changed("vgg19", tmp_path / "vgg19.pth", sampler=FrameSampler("centres", per_row=1))
    prepared = encoder.prepare(media, np.array([[3.0, 4.0]]))
    found = encoder.encode(prepared)
    preset = models.VGG19_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():  # the frame on screen at 3.5 s, at 30 frames a second
        wanted = reference(preset(Image.fromarray(media.frames([105])[0]))[None])[0].permute(1, 2, 0)
    assert relative_error(found[0], wanted) <= 1e-5


def test_batch_normalised_in_both_key_formats(tmp_path):
    """torchvision's own keys and CACE-Net's `I_state_dict` of a Sequential give the network of torchvision."""
    reference = models.vgg19_bn(weights=None, init_weights=False).eval()
    shapes = {key: tuple(value.shape) for key, value in reference.state_dict().items() if key.startswith("features.")}
    state = random_state(shapes)
    reference.load_state_dict(state, strict=False)
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "published.pth")
    numbered = OrderedDict((key.replace("features.", "0."), value) for key, value in state.items())
    torch.save({"I_state_dict": numbered}, tmp_path / "finetuned.pth.tar")
    pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = reference.features(pictures)
    for file in ("published.pth", "finetuned.pth.tar"):
        encoder = load("vgg19-bn:cace2024", weights=str(tmp_path / file))
        with torch.inference_mode():
            assert torch.equal(encoder.forward(pictures), wanted)
    assert encoder.parameters == 20_035_392


def test_parameters_are_the_published_count():
    assert build(recipe("vgg19").spec).parameters == 20_024_384


def test_preparing_needs_no_network_and_asks_for_each_frame_once():
    asked = []

    class Counting(FakeMedia):
        def frames(self, indices, source="native"):
            asked.extend(np.asarray(indices).tolist())
            return super().frames(indices, source)

    picture = moving_picture(frames=100).frames(np.arange(100))  # 100 frames for 160 picks: repeats
    encoder = build(recipe("vgg19:ave2018").spec)
    prepared = encoder.prepare(Counting(pictures=picture, fps=10.0), encoder.spec.grid.segments(10.0))
    assert prepared.shape == (10, 16, 224, 224, 3)
    assert prepared.dtype == torch.uint8
    assert len(asked) == len(set(asked)) == 100
    assert "network" not in vars(encoder)


def test_a_row_does_not_change_with_its_neighbours():
    encoder = load("vgg19:ave2018", weights="random:1")
    rows = torch.randint(0, 255, (2, 1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder.encode(rows.flip(0)).flip(0), encoder.encode(rows))
    assert torch.equal(encoder.encode(torch.stack([rows[0], rows[0]]))[1], encoder.encode(rows)[0])


def test_no_video_is_said(tmp_path):
    encoder = build(recipe("vgg19").spec)
    with pytest.raises(NoVideo):
        encoder.prepare(FakeMedia(np.zeros(16_000)), np.array([[0.0, 1.0]]))


def test_a_checkpoint_with_wrong_keys_is_refused_by_name(state, tmp_path):
    torn = {key: value for key, value in state.items() if key != "features.34.bias"}
    torch.save({**torn, "extra": torch.zeros(1)}, tmp_path / "torn.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(features.34.bias\).*1 surplus \(extra\)"):
        load("vgg19", weights=str(tmp_path / "torn.pth"))


@pytest.mark.parity
def test_keras_network_and_preprocessing(state, keras_file, monkeypatch):
    """The independent reference: Keras' VGG19 and its `preprocess_input`, on two frames."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    network = keras.applications.VGG19(weights=None, include_top=False, input_shape=(224, 224, 3))
    for (block, number), position in zip(BLOCKS, POSITIONS, strict=True):
        kernel = state[f"features.{position}.weight"].permute(2, 3, 1, 0).numpy()
        network.get_layer(f"block{block}_conv{number}").set_weights(
            [kernel, state[f"features.{position}.bias"].numpy()]
        )
    media = moving_picture()
    encoder = load_changed("vgg19:ave2018", keras_file, sampler=FrameSampler("tenths", per_row=2))
    prepared = encoder.prepare(media, encoder.spec.grid.segments(10.0))[7:8]
    inputs = keras.applications.vgg19.preprocess_input(prepared[0].numpy().astype(np.float32))
    np.testing.assert_array_equal(encoder.pictures(prepared[0]).permute(0, 2, 3, 1).numpy(), inputs)
    maps = network.predict(inputs, verbose=0)
    found = encoder.encode(prepared)[0].numpy()
    assert np.abs(found - maps.astype(np.float64).mean(axis=0)).max() <= 1e-5 * maps.max()
    swapped = network.predict(inputs[..., ::-1].copy(), verbose=0).mean(axis=0)
    assert np.abs(found - swapped).max() > 0.05 * maps.max()


@pytest.mark.parity
def test_weights_as_keras_saves_them(state, tmp_path, monkeypatch):
    """A file with the paths that Keras' own HDF5 writer gives (`block1_conv1/block1_conv1/kernel`)."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    network = keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3))
    with h5py.File(tmp_path / "saved.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file, network)
    encoder = load("vgg19:ave2018", weights=str(tmp_path / "saved.h5"))
    inputs = np.random.default_rng(0).normal(0, 60, (1, 32, 32, 3)).astype(np.float32)
    wanted = network.predict(inputs, verbose=0)
    with torch.inference_mode():
        found = encoder.forward(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - wanted).max() <= 1e-5 * wanted.max()
