"""Samples at another rate."""

import errno
import tempfile

import av
import numpy as np
import pytest

from pipeline.waveform import resample, spooled, swresample
from tests import media_factory as make


@pytest.mark.parametrize("method", ["soxr_hq", "kaiser_best"])
def test_resampling_equals_librosa(method):
    librosa = pytest.importorskip("librosa")
    wave = make.tone(0.7, 44_100)[0]
    theirs = librosa.resample(wave, orig_sr=44_100, target_sr=16_000, res_type=method)
    np.testing.assert_array_equal(resample(wave, 44_100, 16_000, method), theirs)


def test_unknown_resampler_is_refused():
    with pytest.raises(ValueError, match="soxr_hq"):
        resample(np.zeros(10, np.float32), 8000, 16000, "nearest")


def test_a_full_temporary_folder_is_named(monkeypatch):
    def on_a_full_disk(**_):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", on_a_full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        spooled(iter([np.zeros((2, 1000), np.float32)]))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, tempfile.gettempdir())


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 16])
def test_swresample_gives_each_channel_what_ffmpeg_does(channels):
    wave = make.tone(0.7, 48_000, channels)
    found = swresample(wave, 48_000, 44_100)
    assert found.shape == (channels, 30_870)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}.get(channels)
    if layout is not None:  # all at once
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.rate = 48_000
        resampler = av.AudioResampler(format="s16p", layout=layout, rate=44_100)
        parts = [part.to_ndarray() for part in [*resampler.resample(frame), *resampler.resample(None)]]
        np.testing.assert_array_equal(found, np.concatenate(parts, axis=1) / np.float32(32_768))
    for number in (0, channels - 1):
        expected = make.tone(0.7, 44_100, channels)[number, 100:-100]
        np.testing.assert_allclose(found[number, 100:-100], expected, atol=2e-3)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.mkv", "pcm_s16le")])
def test_eight_channels_reach_the_vggish_of_llp(tmp_path, name, codec):
    from extractors.base import build
    from extractors.recipes import recipe
    from pipeline.media import Media

    path = make.numbered(tmp_path / name, channels=8, rate_hz=48_000, audio_codec=codec)
    with Media(path) as media:
        found = media.audio(None, mono=False)[:, 2048:90_000]
        if codec != "aac":  # AAC needs more than one bit per sample, and has a channel for low frequencies alone
            np.testing.assert_allclose(found, make.tone(2.0, 48_000, 8)[:, 2048:90_000], atol=1e-4)
        assert found.shape == (8, 90_000 - 2048)
        rows = build(recipe("vggish:llp2020").spec).prepare(media, np.array([[0.0, 1.0], [1.0, 2.0]]))
    assert len(rows) == 2
