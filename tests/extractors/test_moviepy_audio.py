"""The sample map against the real moviepy 1.0.3; golden values by `golden/make_moviepy_map.py`."""

from pathlib import Path

import av
import numpy as np
import pytest

from extractors.moviepy_audio import sample_map, stereo, written
from extractors.spec import Grid
from extractors.waves import row_pieces
from tests.extractors.fake_media import FakeMedia

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = np.load(Path(__file__).parent / "golden" / "moviepy_map.npz")


@pytest.mark.parametrize("case", range(6))
def test_samples_are_the_ones_moviepy_wrote(case):
    """Sound as long as the picture, shorter by a little, by half, by most, shorter than the buffer, and long."""
    duration_s, available, length = GOLDEN[f"{case}_facts"]
    starts, offsets = GOLDEN[f"{case}_runs"]
    nearest = np.rint(44_100 * ((1.0 / 16_000) * np.arange(int(length)))).astype(np.int64)
    wanted = nearest + np.repeat(offsets, np.diff(np.append(starts, int(length))))
    found = sample_map(float(duration_s), int(available))
    np.testing.assert_array_equal(found, wanted)
    if case in (0, 5):
        assert (found != nearest).mean() > 0.3  # negative control: nearest samples alone are not it


def test_the_llp_clip_sounds_as_moviepy_wrote_it():
    """`written` is fed by an independent decode; another build of the AAC decoder may round a sample differently."""
    clip = ROOT.parent / "shared" / "data" / "clips" / "BjCEufrlXm4.mp4"
    if not clip.exists():
        pytest.skip("real clips are not here")
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    wanted = np.load(Path(__file__).parent / "golden" / "moviepy_clip.npz")["every_97th"].T
    found = written(np.concatenate(frames, axis=1), 10.03)[:, ::97] * 32_768
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1


def test_loud_and_fine_samples_are_limited_and_rounded():
    samples = np.zeros((2, 44_100), np.float32)
    samples[0], samples[1] = 1.0, 0.4 / 32_768
    found = written(samples, 1.0)
    assert found.shape == (2, 16_000)
    assert set(found[0]) == {int(0.99 * 32_768) / 32_768}
    assert not found[1].any()


def test_channels_are_mixed_as_ffmpeg_does():
    """Expected values measured with `ffmpeg -ac 2`: mono drops by 3 dB, 5.1 loses its bass channel."""
    np.testing.assert_allclose(stereo(np.ones((1, 3))), np.full((2, 3), 0.70711), atol=1e-5)
    bass_only = np.zeros((6, 2))
    bass_only[3] = 1
    assert not stereo(bass_only).any()
    np.testing.assert_allclose(stereo(np.ones((6, 2))), 1.0)


@pytest.mark.parametrize(("duration_s", "available"), [(0.0, 0), (0.001, 40), (0.3, 0), (2.0, 44_100), (10.0, 10)])
def test_short_sounds_stay_inside_what_is_there(duration_s, available):
    found = sample_map(duration_s, available)
    assert ((found >= 0) & (found < max(available, 1))).all()


def test_the_length_is_the_one_that_the_header_states():
    """moviepy reads it from ffmpeg's log; AAC often decodes to a few milliseconds more, which moves its buffer."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 441_344)).astype(np.float32)
    media = FakeMedia(noise, 44_100)
    assert media.duration_s > 10.0
    media.stated_s = 10.0
    pieces = row_pieces(("moviepy rate=16000", "cut", "mono"), media, Grid().segments(10.0))
    wanted = written(noise, 10.0).mean(axis=0).reshape(10, 16_000)
    np.testing.assert_array_equal(pieces, wanted)
    assert not np.array_equal(written(noise, media.duration_s)[:, :160_000], written(noise, 10.0))
