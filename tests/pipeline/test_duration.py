"""Lengths of files whose header counts an offset, or states nothing, so that FFmpeg guesses."""

import av
import numpy as np
import pytest

from pipeline import duration
from pipeline.acquisition.facts import BadMedia, inspect, probe
from pipeline.datasets.folder import probe_duration
from pipeline.media import Media
from pipeline.mediafile import MediaError
from tests import media_factory as make


def uneven(path, *, options=None, loud_first=False):
    """Sound of which a part is silent, so that the bit rate of the first packets is not that of the rest."""
    samples = np.zeros((1, 8 * 44_100), np.float32)
    samples[:, 6 * 44_100 :] = np.random.default_rng(0).uniform(-0.8, 0.8, 2 * 44_100)
    samples = np.ascontiguousarray(samples[:, ::-1]) if loud_first else samples
    codec = path.suffix[1:]
    return make.write_media(path, samples=samples, audio_codec=codec, options=options)


def joined_mp3(path, *rates: int):
    """Pieces of four seconds of other bit rates, without a header."""
    for rate in rates:
        part = path.with_name(f"{rate}.mp3")
        with av.open(str(part), "w", options={"write_xing": "0", "id3v2_version": "0"}) as write:
            stream = write.add_stream("mp3", rate=44_100, layout="mono")
            stream.bit_rate = rate
            make._put_samples(write, stream, make.tone(4.0, 44_100), 44_100)
        with open(path, "ab") as file:
            file.write(part.read_bytes())
    return path


def moved(path, source, offset_s: float):
    """A remux whose time stamps all start later."""

    def change(number, packet):
        ticks = round(offset_s / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return True

    return make.rewritten(path, source, change, avoid_negative_ts="disabled")


def stated_s(path) -> float:
    with av.open(str(path)) as container:
        return container.duration / av.time_base


MADE = {
    "quiet.aac": lambda path: uneven(path),
    "loud.aac": lambda path: uneven(path, loud_first=True),
    "slow.mp3": lambda path: joined_mp3(path, 32_000, 256_000),
    "fast.mp3": lambda path: joined_mp3(path, 256_000, 32_000),
    "late.mkv": lambda path: moved(path, make.numbered(path.with_name("a.mp4"), duration_s=8.0), 5.0),
}


@pytest.mark.parametrize("name", MADE)
def test_a_figure_that_is_not_the_length_is_not_believed(tmp_path, name):
    path = MADE[name](tmp_path / name)
    assert abs(stated_s(path) - 8.0) > 1.5  # what FFmpeg says
    with Media(path) as media:
        media.check_whole()
        assert len(media.audio(None)) / 44_100 == pytest.approx(8.0, abs=0.1)
    assert inspect(path).duration_s == pytest.approx(8.0, abs=0.1)
    assert probe(path)[0] == pytest.approx(8.0, abs=0.1)
    assert probe_duration(path) == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp3", "a.mkv", "late.mkv"])
def test_what_ends_before_its_header_says_is_truncated_still(tmp_path, name):
    if name == "a.mp3":
        path = make.no_video(tmp_path / name, audio_codec="mp3", duration_s=8.0)
    else:
        path = make.numbered(tmp_path / "a.mkv", duration_s=8.0)
        path = moved(tmp_path / name, path, 5.0) if name == "late.mkv" else path
    assert probe_duration(path) == pytest.approx(8.0, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Media(path) as media, pytest.raises(MediaError) as caught:
        media.check_whole()
    assert caught.value.outcome == "truncated"
    with pytest.raises(BadMedia) as caught:
        inspect(path)
    assert caught.value.outcome == "truncated"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.flv"])
def test_the_header_of_an_ordinary_file_is_believed(tmp_path, monkeypatch, name):
    codecs = {"video_codec": "mpeg4" if name == "a.avi" else "libx264", "audio_codec": "mp3"}
    path = make.numbered(tmp_path / name, **codecs)
    monkeypatch.setattr(duration, "_to_last_packet_s", None)  # no packet is read
    assert probe_duration(path) == stated_s(path) == probe(path)[0]
