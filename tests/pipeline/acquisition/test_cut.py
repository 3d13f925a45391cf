"""Cuts are exact to one frame: the frames carry their own numbers."""

import av
import numpy as np
import pytest

from pipeline.acquisition.cut import cut
from pipeline.acquisition.facts import BadMedia, inspect
from tests import media_factory as factory


def _frames(path):
    with av.open(str(path)) as container:
        return [
            (frame.time, factory.read_number(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("start_s", [0.0, 2.0, 2.37, 3.3333])
def test_first_and_last_frame(video, tmp_path, start_s):
    made = tmp_path / "-cut.mp4"
    settings = cut(video, made, start_s, 2.0)
    frames = _frames(made)
    first = int(np.ceil(start_s * 25 - 1e-6))
    assert [number for _, number in frames] == list(range(first, first + 50))
    # A start between two frames shifts nothing: frame k is shown at k / 25 - start.
    np.testing.assert_allclose([time for time, _ in frames], np.arange(first, first + 50) / 25 - start_s, atol=1e-3)
    facts = inspect(made)
    assert facts.audio_s == pytest.approx(2.0, abs=0.03)
    assert settings["vcodec"] == "libx264"


def test_variable_frame_rate_keeps_its_times(tmp_path):
    path, times_s = factory.variable_rate(tmp_path / "vfr.mkv")
    cut(path, tmp_path / "cut.mp4", 0.5, 2.0)
    frames = _frames(tmp_path / "cut.mp4")
    inside = np.flatnonzero((times_s >= 0.5) & (times_s < 2.5 - 1e-6))
    assert [number for _, number in frames] == inside.tolist()
    np.testing.assert_allclose([time for time, _ in frames], times_s[inside] - 0.5, atol=2e-3)


def test_sound_and_picture_stay_together(tmp_path):
    """A click at 3.0 s is heard 0.6 s into a cut from 2.4 s."""
    samples = np.zeros((1, 6 * 44_100), np.float32)
    samples[0, 3 * 44_100 : 3 * 44_100 + 400] = 0.9
    images = (factory.number_image(index, 160, 120) for index in range(150))
    path = factory.write_media(tmp_path / "x.mp4", images=images, samples=samples)
    cut(path, tmp_path / "cut.mp4", 2.4, 2.0)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        frames = list(container.decode(audio=0))
    wave = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)[0]
    click_s = frames[0].time + int(np.argmax(np.abs(wave) > 0.3)) / 44_100
    assert click_s == pytest.approx(0.6, abs=0.005)


def test_odd_sizes_streams_that_are_missing_and_the_end(tmp_path):
    cut(factory.odd_size(tmp_path / "odd.mkv", width=161, height=121, duration_s=1), tmp_path / "a.mp4", 0.2, 0.5)
    assert inspect(tmp_path / "a.mp4").width == 161
    cut(factory.no_audio(tmp_path / "n.mp4", duration_s=2, width=64, height=48), tmp_path / "b.mp4", 1.5, None)
    assert inspect(tmp_path / "b.mp4").frames == 12  # 38 to 49
    cut(factory.no_video(tmp_path / "s.mp4", duration_s=2), tmp_path / "c.mp4", 0.5, 1.0)
    assert inspect(tmp_path / "c.mp4").audio_s == pytest.approx(1.0, abs=0.03)


def test_same_bytes_twice_and_a_reason_for_rubbish(video, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        cut(video, tmp_path / name, 1.1, 1.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(BadMedia, match="ffmpeg stopped"):
        cut(factory.not_media(tmp_path / "x.mp4"), tmp_path / "c.mp4", 0.0, 1.0)
