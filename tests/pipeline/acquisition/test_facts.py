"""What decoding finds in ordinary and broken files, and the verdict over it."""

import numpy as np
import pytest

from pipeline.acquisition.facts import BadMedia, inspect, judge, probe
from tests import media_factory as factory

SMALL = {"width": 160, "height": 120}


def test_facts_of_an_ordinary_clip(video):
    facts = inspect(video)
    assert (facts.frames, facts.width, facts.height) == (150, 160, 120)
    assert (facts.video_codec, facts.audio_codec, facts.audio_rate_hz, facts.audio_channels) == (
        "h264",
        "aac",
        44_100,
        1,
    )
    assert facts.fps == pytest.approx(25.0)
    assert facts.video_s == pytest.approx(6.0)
    assert facts.audio_s == pytest.approx(6.0, abs=0.05)
    assert facts.loudness_lufs == pytest.approx(-9.7, abs=0.3)  # a sine of amplitude 0.5: -9.03 dB power, -0.69
    assert (facts.black_share, facts.still_share) == (0.0, 0.0)
    assert probe(video) == (pytest.approx(6.0, abs=0.05), ".mp4")


def test_facts_of_a_window(video):
    facts = inspect(video, 2.0, 1.5)
    assert facts.frames in (37, 38)
    assert facts.video_s == pytest.approx(1.5, abs=0.04)
    assert inspect(video, 5.0, 3.0).video_s == pytest.approx(1.0, abs=0.04)


def test_a_longer_second_sound_track_and_a_stream_without_a_decoder(tmp_path):
    facts = inspect(factory.second_sound(tmp_path / "both.mkv", duration_s=2.0, second_s=5.0))
    assert facts.duration_s == pytest.approx(2.0, abs=0.1)
    facts = inspect(factory.unknown_coding(tmp_path / "pictures.mp4", duration_s=2.0))
    assert (facts.frames, facts.audio_s) == (0, pytest.approx(2.0, abs=0.1))
    facts = inspect(factory.unknown_coding(tmp_path / "sound.mp4", duration_s=2.0, video=False))
    assert (facts.frames, facts.audio_s) == (50, 0.0)


@pytest.mark.parametrize(("level", "black"), [(0, 1.0), (120, 0.0)])
def test_still_and_black_pictures_and_silence(tmp_path, level, black):
    image = np.full((48, 64, 3), level, np.uint8)
    path = factory.write_media(tmp_path / "x.mp4", images=[image] * 50, samples=np.zeros((1, 88_200), np.float32))
    facts = inspect(path)
    assert (facts.still_share, facts.black_share) == (1.0, black)
    assert facts.loudness_lufs <= -70


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (factory.zero_byte, "not-media"),
        (factory.not_media, "not-media"),
        (lambda path: factory.truncated(path, duration_s=4, **SMALL), "truncated"),
        (lambda path: factory.truncated(path, duration_s=4, moov_first=True, **SMALL), "truncated"),
    ],
)
def test_broken_files_have_a_reason(tmp_path, make, outcome):
    path = make(tmp_path / "x.mp4")
    with pytest.raises(BadMedia) as caught:
        inspect(path)
    assert caught.value.outcome == outcome


def test_a_playlist_is_not_media(tmp_path, video):
    """It could name any file of this machine, or any address."""
    playlist = tmp_path / "x.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nfile://{video}\n#EXT-X-ENDLIST\n")
    concat = tmp_path / "y.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile {video}\n")
    for path in (playlist, concat):
        with pytest.raises(BadMedia, match=r"[xy]\.mp4") as caught:
            inspect(path)
        assert caught.value.outcome == "not-media"


@pytest.mark.parametrize(
    ("duration_s", "outcome"),
    [(6.0, None), (None, None), (6.4, None), (6.7, "too-short"), (5.2, None), (4.0, "wrong-length")],
)
def test_expected_length(video, duration_s, outcome):
    facts = inspect(video)
    if outcome is None:
        judge(facts, "x", duration_s, 0.5)
        return
    with pytest.raises(BadMedia) as caught:
        judge(facts, "x", duration_s, 0.5)
    assert caught.value.outcome == outcome


def test_streams_that_are_needed(tmp_path):
    silent = inspect(factory.no_audio(tmp_path / "a.mp4", duration_s=1, **SMALL))
    blind = inspect(factory.no_video(tmp_path / "b.mp4", duration_s=1))
    for facts, missing in ((silent, "no-audio"), (blind, "no-video")):
        with pytest.raises(BadMedia) as caught:
            judge(facts, "x", 1.0, 0.5)
        assert caught.value.outcome == missing
        judge(facts, "x", 1.0, 0.5, need="any")
    judge(silent, "x", 1.0, 0.5, need="video")
    judge(blind, "x", 1.0, 0.5, need="audio")
