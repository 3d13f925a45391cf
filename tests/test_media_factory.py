"""The odd files are odd in exactly the way their names say."""

import contextlib

import av
import numpy as np
import pytest

from tests import media_factory as factory


def frames(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.rotation, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "make",
    [factory.numbered, factory.no_audio, factory.short, factory.odd_size, factory.six_channels, factory.eight_khz],
)
def test_every_frame_carries_its_number(tmp_path, make):
    path = make(tmp_path / "clip.mp4")
    assert [factory.read_number(image) for _, _, image in frames(path)] == list(range(len(frames(path))))


def test_numbers_survive_scaling_and_are_not_always_the_same():
    image = factory.number_image(40_961, 640, 360)
    assert factory.read_number(image[::3, ::3]) == 40_961
    assert factory.read_number(np.zeros_like(image)) == 0


def test_variable_rate_keeps_its_times(tmp_path):
    path, times = factory.variable_rate(tmp_path / "clip.mp4")
    np.testing.assert_allclose([time for time, _, _ in frames(path)], times, atol=1e-4)
    assert len(set(np.diff(times).round(4))) > 2


def test_rotation_is_in_the_header_only(tmp_path):
    turned = frames(factory.rotated(tmp_path / "turned.mp4", quarter_turns=1))
    straight = frames(factory.numbered(tmp_path / "straight.mp4"))
    assert (turned[0][1], straight[0][1]) == (-90, 0)
    np.testing.assert_array_equal(turned[3][2], straight[3][2])


def test_streams_are_what_the_names_say(tmp_path):
    for make, video, channels, rate_hz in (
        (factory.no_audio, 1, 0, 0),
        (factory.no_video, 0, 1, 44_100),
        (factory.six_channels, 1, 6, 48_000),
        (factory.eight_khz, 1, 1, 8_000),
    ):
        with av.open(str(make(tmp_path / "clip.mp4"))) as container:
            assert len(container.streams.video) == video
            found = [(stream.channels, stream.rate) for stream in container.streams.audio]
            assert found == ([(channels, rate_hz)] if channels else [])


def test_unreadable_files_do_not_open_and_the_other_truncation_does(tmp_path):
    for make in (factory.zero_byte, factory.not_media, factory.truncated):
        with pytest.raises(av.FFmpegError):
            av.open(str(make(tmp_path / f"{make.__name__}.mp4")))
    path = factory.truncated(tmp_path / "early.mp4", moov_first=True)
    decoded = 0
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(2e6, rel=0.05)
        with contextlib.suppress(av.FFmpegError):
            for _ in container.decode(video=0):
                decoded += 1
    assert 0 < decoded < 50
