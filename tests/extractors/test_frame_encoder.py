"""What every encoder of frames does, with a network small enough to follow by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from extractors.base import NoVideo
from extractors.frame_encoder import FrameEncoder
from extractors.spec import FeatureSpec, FrameSampler, Grid
from tests.extractors.fake_media import FakeMedia


class Means(FrameEncoder):
    """Mean of each channel over space."""

    def build_network(self):
        return torch.nn.Conv2d(1, 1, 1)

    def forward(self, inputs):
        return inputs.mean(dim=(2, 3))


SPEC = FeatureSpec(
    encoder="means",
    recipe="default",
    modality="visual",
    layer="mean",
    preprocess=("squash size=4 filter=cv2-bilinear", "unit"),
    postprocess=("mean over frames",),
    grid=Grid(1.0, 1.0),
    sampler=FrameSampler("centres", per_row=2),
    shape=(3,),
)


def ramp(count: int = 40) -> FakeMedia:
    """Picture n is grey level n, 10 a second."""
    pictures = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 6, 8, 3))
    return FakeMedia(pictures=np.ascontiguousarray(pictures), fps=10.0)


def changed(**fields) -> Means:
    return Means(dataclasses.replace(SPEC, **fields))


def test_rows_are_means_over_their_own_frames():
    encoder = Means(SPEC)
    rows = encoder.encode(encoder.prepare(ramp(), SPEC.grid.segments(4.0)))
    # The middles of a second's halves fall on frames 2 and 7 of its ten.
    wanted = (np.arange(4) * 10 + 4.5) / 255
    np.testing.assert_allclose(rows, np.repeat(wanted[:, None], 3, axis=1), rtol=1e-6)


def test_blocks_of_rows_equal_the_whole():
    encoder = Means(SPEC)
    segments = SPEC.grid.segments(4.0)
    whole = encoder.prepare(ramp(), segments)
    assert torch.equal(torch.cat([encoder.prepare(ramp(), segments[:3]), encoder.prepare(ramp(), segments[3:])]), whole)


def test_more_rows_than_fit_at_once_keep_their_order():
    encoder = Means(SPEC)
    prepared = torch.randint(0, 255, (37, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = (prepared.double() / 255).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(encoder.encode(prepared), wanted, rtol=1e-5)


def test_one_frame_a_row_needs_no_mean():
    encoder = changed(sampler=FrameSampler("centres", per_row=1), postprocess=("l2",))
    rows = encoder.encode(encoder.prepare(ramp(), SPEC.grid.segments(4.0)))
    np.testing.assert_allclose(rows, np.full((4, 3), 3**-0.5), rtol=1e-6)


def test_channels_last():
    class Maps(Means):
        def forward(self, inputs):
            return inputs

    encoder = Maps(dataclasses.replace(SPEC, postprocess=("mean over frames", "channels last"), shape=(4, 4, 3)))
    prepared = torch.randint(0, 255, (1, 1, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(encoder.encode(prepared)[0], prepared[0, 0] / 255, rtol=1e-6)


def test_the_same_bytes_twice_and_no_random_number_drawn():
    encoder = Means(SPEC)
    state = torch.get_rng_state()
    first, second = (encoder.encode(encoder.prepare(ramp(), SPEC.grid.segments(4.0))) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_frames_are_read_in_bounded_groups():
    asked = []

    class Watching(FakeMedia):
        def frames(self, indices, source="native"):
            asked.append(len(indices))
            return super().frames(indices, source)

    media = Watching(pictures=ramp(200).frames(np.arange(200)), fps=10.0)
    changed(sampler=FrameSampler("centres", per_row=5)).prepare(media, SPEC.grid.segments(20.0))
    assert sum(asked) == 100
    assert max(asked) <= 16


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (600, 60)])
def test_one_frame_and_a_minute(count, rows):
    pictures = np.zeros((count, 6, 8, 3), np.uint8)
    media = FakeMedia(pictures=pictures, fps=10.0)
    assert Means(SPEC).prepare(media, SPEC.grid.segments(media.duration_s)).shape == (rows, 2, 4, 4, 3)


def test_what_cannot_work_is_said():
    with pytest.raises(NoVideo):
        Means(SPEC).prepare(FakeMedia(np.zeros(16_000)), SPEC.grid.segments(1.0))
    with pytest.raises(ValueError, match="whiten"):
        changed(postprocess=("whiten",))
    with pytest.raises(ValueError, match="sampler"):
        changed(sampler=None)


def test_half_precision_is_another_number_and_another_key():
    class Product(Means):
        def forward(self, inputs):
            return torch.nn.functional.linear(inputs.mean(dim=(2, 3)), torch.eye(3) / 3)

    prepared = torch.randint(0, 255, (2, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    single, half = (Product(dataclasses.replace(SPEC, precision=precision)) for precision in ("fp32", "bf16"))
    assert single.spec.key != half.spec.key
    error = (single.encode(prepared) - half.encode(prepared)).abs().max()
    assert 0 < error < 1e-2
