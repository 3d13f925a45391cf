"""R(2+1)D-18: published keys and the LLP steps, against torchvision's network and transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models, transforms

from extractors.base import build, load
from extractors.recipes import recipe
from tests.extractors.visual import moving_picture, random_state, relative_error, shapes_of


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    network = models.video.r2plus1d_18(weights=None).eval()
    state = random_state(shapes_of(network))
    network.load_state_dict(state)
    path = tmp_path_factory.mktemp("r2plus1d") / "r2plus1d_18-91a641e6.pth"
    torch.save(state, path)
    return path, network


def test_llp2020_from_pictures_to_rows(published):
    """Second s is pictures 8s to 8s+7 of the 80 that are spread over the dump."""
    path, network = published
    media = moving_picture(frames=82)
    encoder = load("r2plus1d:llp2020", weights=str(path))
    found = encoder.encode(encoder.prepare(media, encoder.spec.grid.segments(10.0))[3:4])
    steps = transforms.Compose(
        [
            transforms.Resize((112, 112)),
            transforms.ToTensor(),
            transforms.Normalize([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]),
        ]
    )
    spread = np.rint(np.linspace(0, 81, 80)).astype(int)
    frames = media.frames(spread[24:32], "jpeg-r8")
    stack = torch.stack([steps(Image.fromarray(frame)) for frame in frames], dim=1)[None]
    children = torch.nn.Sequential(*list(network.children())[:-1])
    with torch.inference_mode():
        wanted = children(stack).flatten(1)
        backwards = children(stack.flip(2)).flatten(1)
    assert stack.shape == (1, 3, 8, 112, 112)
    assert torch.equal(found, wanted)
    assert relative_error(backwards, wanted) > 1e-3  # negative control: frames in reverse order


def test_preset_changes_the_input_by_a_third_of_a_deviation():
    """Why the recipe's own squash matters: the torchvision preset gives the same shape."""
    media = moving_picture(frames=82, height=240, width=320)
    segments = np.array([[0.0, 1.0]])
    llp = build(recipe("r2plus1d:llp2020").spec)
    ours = llp.prepare(media, segments)[0]
    preset = models.video.R2Plus1D_18_Weights.KINETICS400_V1.transforms()
    frames = media.frames(llp.frame_indices(media, segments)[0], "jpeg-r8")
    theirs = preset(torch.from_numpy(frames).permute(0, 3, 1, 2))
    found = llp.pictures(ours).transpose(0, 1)
    assert found.shape == theirs.shape
    assert (found - theirs).abs().mean() > 0.1


def test_one_row_keeps_its_axis(published):
    encoder = load("r2plus1d", weights=str(published[0]))
    prepared = torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8)
    assert encoder.encode(prepared).shape == (1, 512)
    assert encoder.parameters == 31_300_125
