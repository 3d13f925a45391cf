"""Decoding: frames by number, audio by rate, and every kind of broken file."""

import numpy as np
import pytest

from extractors.base import NoAudio
from pipeline.media import Media
from pipeline.mediafile import MediaError
from tests import media_factory as make
from tests.real_data import clip_file


def test_frames_come_by_number_in_any_order_and_with_repeats(tmp_path):
    path = make.numbered(tmp_path / "a.mp4", duration_s=2.0)
    with Media(path) as media:
        assert len(media.timeline()) == 50
        wanted = np.array([40, 3, 3, 12, 49, 0])
        assert [make.read_number(frame) for frame in media.frames(wanted)] == wanted.tolist()
        assert [make.read_number(frame) for frame in media.frames(np.array([5]))] == [5]


def test_timeline_of_a_variable_frame_rate_is_the_written_one(tmp_path):
    path, times_s = make.variable_rate(tmp_path / "v.mp4")
    with Media(path) as media:
        np.testing.assert_allclose(media.timeline(), times_s - times_s[0], atol=2e-3)


def test_rotation_is_applied_as_opencv_does(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = make.rotated(tmp_path / "r.mp4")
    ok, picture = cv2.VideoCapture(str(path)).read()
    assert ok
    with Media(path) as media:
        ours = media.frames(np.array([0]))[0]
    assert ours.shape == picture.shape
    np.testing.assert_array_equal(ours, picture[..., ::-1])


def test_a_clip_inside_a_longer_file(tmp_path):
    path = make.numbered(tmp_path / "long.mp4", duration_s=8.0)
    with Media(path, start_s=3.0, duration_s=2.0) as media:
        assert len(media.timeline()) == 50
        assert make.read_number(media.frames(np.array([0]))[0]) == 75
        assert media.audio(None, mono=False).shape[1] == 2 * media.audio_rate_hz
        cut = media.audio(None)
    with Media(path) as media:
        whole = media.audio(None)
        start = 3 * media.audio_rate_hz
    np.testing.assert_allclose(cut, whole[start : start + len(cut)], atol=1e-4)


def test_a_clip_at_the_start_of_a_longer_file_is_cut_too(tmp_path):
    path = make.numbered(tmp_path / "long.mp4", duration_s=4.0)
    with Media(path, start_s=0.0, duration_s=2.0) as media:
        assert len(media.timeline()) == 50
        assert len(media.audio(None)) == 2 * media.audio_rate_hz


@pytest.mark.parametrize(
    ("writer", "outcome"), [(make.zero_byte, "not-media"), (make.not_media, "not-media"), (make.truncated, "truncated")]
)
def test_files_that_do_not_open_say_why(tmp_path, writer, outcome):
    path = writer(tmp_path / "x.mp4")
    with pytest.raises(MediaError) as caught, Media(path) as media:
        media.check_whole()
    assert caught.value.outcome == outcome
    assert "x.mp4" in str(caught.value)


def test_a_file_cut_in_its_middle_is_truncated(tmp_path):
    path = make.truncated(tmp_path / "cut.mp4", moov_first=True, keep=0.4)
    with Media(path) as media, pytest.raises(MediaError) as caught:
        media.check_whole()
    assert caught.value.outcome == "truncated"


def test_a_second_sound_track_that_lasts_longer_makes_no_file_truncated(tmp_path):
    with Media(make.second_sound(tmp_path / "both.mkv", duration_s=2.0, second_s=5.0)) as media:
        media.check_whole()
        assert media.video_end_s == pytest.approx(2.0, abs=0.1)
        assert media.stated_s == pytest.approx(5.0, abs=0.1)


def test_no_audio_and_no_video(tmp_path):
    with Media(make.no_audio(tmp_path / "a.mp4")) as media:
        assert not media.has_audio
        with pytest.raises(NoAudio):
            media.audio(16000)
    with Media(make.no_video(tmp_path / "b.mp4")) as media:
        assert len(media.timeline()) == 0
        with pytest.raises(MediaError, match="no video"):
            media.frames(np.array([0]))
        assert media.audio(16000).ndim == 1


def test_odd_size_six_channels_and_eight_khz(tmp_path):
    with Media(make.odd_size(tmp_path / "o.mp4")) as media:
        assert media.frames(np.array([0])).shape == (1, 241, 321, 3)
    with Media(make.six_channels(tmp_path / "s.mp4")) as media:
        assert media.audio(None, mono=False).shape[0] == 6
        assert media.audio(16000).ndim == 1
    with Media(make.eight_khz(tmp_path / "e.mp4")) as media:
        assert media.audio_rate_hz == 8000
        assert len(media.audio(16000)) == 2 * len(media.audio(8000))


def test_frames_of_a_real_clip_equal_opencv():
    cv2 = pytest.importorskip("cv2")
    path = clip_file("BjCEufrlXm4.mp4")
    capture = cv2.VideoCapture(str(path))
    theirs = [capture.read()[1][..., ::-1] for _ in range(300)]
    with Media(path) as media:
        ours = media.frames(np.arange(300))
    np.testing.assert_array_equal(ours, np.stack(theirs))


def test_audio_of_a_real_clip_equals_its_wav():
    soundfile = pytest.importorskip("soundfile")
    path = clip_file("WW8Scmk5YsM.wav")
    theirs, rate_hz = soundfile.read(path, dtype="float32")
    with Media(path) as media:
        assert media.audio_rate_hz == rate_hz
        np.testing.assert_array_equal(media.audio(None, mono=False), theirs.T)
