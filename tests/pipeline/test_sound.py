"""Sound: of every container and codec, and of a long clip, in a file instead of in memory."""

import av
import numpy as np
import pytest

from pipeline import sound as sound_module
from pipeline import waveform
from pipeline.media import Media
from tests import media_factory as make


@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_audio_of_a_long_clip_lies_in_a_file_and_is_the_same(tmp_path, monkeypatch, start_s):
    path = make.numbered(tmp_path / "a.mp4", duration_s=3.0, rate_hz=44_100, channels=2)
    calls = [(None, False), (None, True), (16_000, True), (16_000, False), (48_000, True)]
    with Media(path, start_s, 2.0) as media:
        expected = [media.audio(rate_hz, mono) for rate_hz, mono in calls]
    monkeypatch.setattr(sound_module, "_LONG_S", 1.0)
    monkeypatch.setattr(waveform, "_STREAMED", 10_001)  # several pieces, none of them round
    with Media(path, start_s, 2.0) as media:
        for (rate_hz, mono), wave in zip(calls, expected, strict=True):
            found = media.audio(rate_hz, mono)
            assert isinstance(found, np.memmap)
            assert found.shape == wave.shape
            np.testing.assert_allclose(found, wave, atol=1e-6)


CONTAINERS = {
    "a.mp4": ("libx264", "aac"),
    "a.mkv": ("libx264", "flac"),
    "a.webm": ("libvpx-vp9", "libopus"),
    "a.avi": ("mpeg4", "mp3"),
    "a.ts": ("mpeg2video", "mp2"),
    "a.mov": ("libx264", "pcm_s16le"),
}


# WebM rounds times to milliseconds, so that what is cut out of it may be off by one.
@pytest.mark.parametrize(
    ("name", "start_s"),
    [(name, start_s) for name in CONTAINERS for start_s in (0.0, 1.5) if (name, start_s) != ("a.webm", 1.5)],
)
def test_the_samples_are_those_that_a_plain_decoder_gives(tmp_path, name, start_s):
    """Although the file is opened without a look at its pictures."""
    pictures, sound = CONTAINERS[name]
    path = make.numbered(tmp_path / name, duration_s=3.0, rate_hz=48_000, video_codec=pictures, audio_codec=sound)
    with av.open(str(path)) as container:
        origin_s = container.start_time / av.time_base
        pieces = [(frame.time - origin_s, waveform.to_float(frame)) for frame in container.decode(audio=0)]
    whole = np.concatenate([samples for _, samples in pieces], axis=1)
    first = round((start_s - pieces[0][0]) * 48_000)
    whole = whole[:, first:] if first >= 0 else np.pad(whole, ((0, 0), (-first, 0)))
    with Media(path, start_s, 1.0 if start_s else None) as media:
        found = media.audio(None, mono=False)
    assert found.shape[1] == (48_000 if start_s else whole.shape[1])
    # The first packets after a seek lean on some that were not read, for a second at most that is thrown away.
    np.testing.assert_allclose(found, whole[:, : found.shape[1]], atol=1e-4 if start_s else 0)
