"""Sound: of every container and codec, and of a long clip, in a file instead of in memory."""

import struct

import av
import numpy as np
import pytest

from pipeline import sound as sound_module
from pipeline import waveform
from pipeline.media import Media
from pipeline.mediafile import MediaError
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


def chirp(path, **more):
    """Three seconds of a tone that rises, so that every moment sounds different, of a file and as it was written."""
    times_s = np.arange(3 * 48_000) / 48_000
    samples = (0.5 * np.sin(2 * np.pi * (200 + 300 * times_s) * times_s)).astype(np.float32)[None]
    images = (make.number_image(number, 64, 48) for number in range(75))
    return make.write_media(path, images=images, samples=samples, rate_hz=48_000, **more), samples[0]


def heard(path, *cut) -> np.ndarray:
    with Media(path, *cut) as media:
        media.check_whole()
        return media.audio(None)


def close(found, expected) -> bool:
    """The same but for what AAC makes of it."""
    return bool(np.abs(found - expected).max() < 0.05)


@pytest.mark.parametrize("cut", [(0.0, None), (1.2, 1.5)])
def test_sound_that_does_not_decode_is_silence_and_what_follows_keeps_its_time(tmp_path, cut):
    path = make.damaged(tmp_path / "a.mp4", [20, 71, 72, 73], duration_s=3.0, rate_hz=48_000)
    clean = heard(make.numbered(tmp_path / "clean.mp4", duration_s=3.0, rate_hz=48_000), *cut)
    found = heard(path, *cut)
    assert len(found) == len(clean)
    # AAC adds every packet to the one before it, so that one more than the lost packets is touched.
    lost = np.zeros(3 * 48_000 + 2048, dtype=bool)
    for first, last in ((20, 21), (71, 74)):
        lost[(first - 1) * 1024 : last * 1024] = True
    start = round(cut[0] * 48_000)
    kept = ~lost[start : start + len(found)]
    kept[round(2.9 * 48_000) - start :] = False  # the end is noise, which the decoder draws at random
    assert np.abs(found - clean)[kept].max() < 1e-3
    silent = slice(71 * 1024 - start, 73 * 1024 - start)
    assert not found[silent].any()


def test_a_second_of_sound_that_does_not_decode_is_a_reason(tmp_path):
    path = make.damaged(tmp_path / "a.mp4", range(40, 100), duration_s=3.0, rate_hz=48_000)
    with Media(path) as media:
        with pytest.raises(MediaError, match=r"a.mp4: 1.28 s of its sound do not decode") as caught:
            media.audio(16_000)
        assert caught.value.outcome == "decode-error"
        assert len(media.frames(np.arange(75))) == 75


def floats(path, samples):
    """A WAV of float samples, 48 kHz, as they are."""
    head = struct.pack("<4sI8sIHHIIHH", b"RIFF", 36 + samples.nbytes, b"WAVEfmt ", 16, 3, 1, 48_000, 192_000, 4, 32)
    path.write_bytes(head + struct.pack("<4sI", b"data", samples.nbytes) + samples.astype("<f4").tobytes())
    return path


def test_samples_that_are_no_numbers_are_silence_and_a_second_of_them_is_a_reason(tmp_path):
    samples = make.tone(3.0, 48_000)[0]
    samples[[20_000, 20_001]] = np.nan, np.inf
    found = heard(floats(tmp_path / "few.wav", samples))
    assert len(found) == len(samples)
    assert not found[20_000:20_002].any()
    same = found == samples
    assert 0.95 < same.mean() < 1.0
    samples[60_000:120_000] = np.nan
    with Media(floats(tmp_path / "many.wav", samples)) as media, pytest.raises(MediaError, match="of its sound do not"):
        media.audio(16_000)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "pcm_s16le"), ("a.ts", "aac")])
def test_a_gap_in_the_sound_is_silence(tmp_path, name, codec):
    source = chirp(tmp_path / "source.mkv", audio_codec=codec)[0]
    whole = heard(make.rewritten(tmp_path / f"whole-{name}", source, lambda number, packet: True))
    path = make.rewritten(
        tmp_path / name, source, lambda number, packet: packet.stream.type == "video" or not 40 <= number < 70
    )
    found = heard(path)
    assert len(found) == pytest.approx(len(whole), abs=48)  # MKV rounds times to milliseconds
    # AAC adds every packet to the one before it; and the first may lie before the start.
    np.testing.assert_array_equal(found[: 38 * 1024], whole[: 38 * 1024])
    assert not found[41 * 1024 : 68 * 1024].any()
    after = len(whole) - 72 * 1024
    np.testing.assert_allclose(found[-after : -after // 8], whole[-after : -after // 8], atol=1e-3)


def test_sound_that_overlaps_is_dropped(tmp_path):
    source, written = chirp(tmp_path / "source.mkv", audio_codec="pcm_s16le")

    def crowd(number, packet):
        """From 1.5 s on, time stamps advance by half of what there is to hear."""
        if packet.stream.type == "audio" and packet.pts > 1500:
            packet.pts = packet.dts = 1500 + (packet.pts - 1500) // 2
        return True

    found = heard(make.rewritten(tmp_path / "a.mkv", source, crowd))
    assert len(found) / 48_000 == pytest.approx(1.5 + 1.5 / 2, abs=0.11)
    assert close(found[:72_000], written[:72_000])


def test_time_stamps_that_jitter_change_no_sample(tmp_path):
    source = chirp(tmp_path / "source.mkv", audio_codec="pcm_s16le")[0]

    def jitter(number, packet):
        if packet.stream.type == "audio":
            packet.pts = packet.dts = packet.pts + (number % 5) * 4
        return True

    np.testing.assert_array_equal(heard(make.rewritten(tmp_path / "a.mkv", source, jitter)), heard(source))
