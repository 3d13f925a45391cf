"""Decoding: frames by number, audio by rate, and every kind of broken file."""

import numpy as np
import pytest

from extractors.base import NoAudio
from pipeline import media as media_module
from pipeline import waveform
from pipeline.manifest import Clip
from pipeline.media import Media, MediaError, find
from pipeline.waveform import resample
from tests import media_factory as make
from tests.real_data import clip_file


def test_frames_come_by_number_in_any_order_and_with_repeats(tmp_path):
    path = make.numbered(tmp_path / "a.mp4", duration_s=2.0)
    with Media(path) as media:
        assert len(media.timeline()) == 50
        wanted = np.array([40, 3, 3, 12, 49, 0])
        assert [make.read_number(frame) for frame in media.frames(wanted)] == wanted.tolist()
        assert [make.read_number(frame) for frame in media.frames(np.array([5]))] == [5]


def test_only_wanted_frames_are_kept(tmp_path):
    with Media(make.numbered(tmp_path / "a.mp4", duration_s=2.0)) as media:
        media.want(np.array([2, 30]))
        media.frames(np.array([30]))
        assert sorted(media._cache) == [2, 30]
        media.want(np.array([40]))
        assert sorted(media._cache) == []


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


@pytest.mark.parametrize("method", ["soxr_hq", "kaiser_best"])
def test_resampling_equals_librosa(method):
    librosa = pytest.importorskip("librosa")
    wave = make.tone(0.7, 44_100)[0]
    theirs = librosa.resample(wave, orig_sr=44_100, target_sr=16_000, res_type=method)
    np.testing.assert_array_equal(resample(wave, 44_100, 16_000, method), theirs)


def test_unknown_resampler_is_refused():
    with pytest.raises(ValueError, match="soxr_hq"):
        resample(np.zeros(10, np.float32), 8000, 16000, "nearest")


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


def test_files_are_found_by_id_then_source_then_in_full(tmp_path):
    clip = Clip("abc_5_15", "abc", start_s=5.0, duration_s=10.0)
    with pytest.raises(MediaError, match="abc_5_15"):
        find(clip, tmp_path)
    (tmp_path / "full").mkdir()
    for name, whole in (("full/abc.mp4", True), ("abc.webm", False), ("abc_5_15.mp4", False)):
        (tmp_path / name).touch()
        assert find(clip, tmp_path) == (tmp_path / name, whole)


def test_a_media_path_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match="stay inside"):
        find(Clip("a", "a", media="../secret.mp4"), tmp_path)


@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_audio_of_a_long_clip_lies_in_a_file_and_is_the_same(tmp_path, monkeypatch, start_s):
    path = make.numbered(tmp_path / "a.mp4", duration_s=3.0, rate_hz=44_100, channels=2)
    calls = [(None, False), (None, True), (16_000, True), (16_000, False), (48_000, True)]
    with Media(path, start_s, 2.0) as media:
        expected = [media.audio(rate_hz, mono) for rate_hz, mono in calls]
    monkeypatch.setattr(media_module, "_LONG_S", 1.0)
    monkeypatch.setattr(waveform, "_STREAMED", 10_001)  # several pieces, none of them round
    with Media(path, start_s, 2.0) as media:
        for (rate_hz, mono), wave in zip(calls, expected, strict=True):
            found = media.audio(rate_hz, mono)
            assert isinstance(found, np.memmap)
            assert found.shape == wave.shape
            np.testing.assert_allclose(found, wave, atol=1e-6)


def watch(monkeypatch) -> list[int]:
    """Counts the frames that come out of the decoder."""
    counted = []
    real = Media._decode

    def decode(self):
        for number, frame in real(self):
            counted.append(number)
            yield number, frame

    monkeypatch.setattr(Media, "_decode", decode)
    return counted


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg2video")])
def test_leaving_out_frames_that_nobody_wants_changes_no_other(tmp_path, monkeypatch, name, codec):
    path = make.numbered(tmp_path / name, duration_s=3.0, video_codec=codec, audio=False)
    counted = watch(monkeypatch)
    with Media(path) as media:
        every = np.arange(len(media.timeline()))
        media.want(every)
        expected = media.frames(every)
    whole = len(counted)
    assert whole == 75
    counted.clear()
    with Media(path) as media:
        media.want(np.array([7, 23]))
        first = media.frames(np.array([23, 7]))
        media.want(np.array([24, 61, 74]))
        np.testing.assert_array_equal(media.frames(np.array([24, 61, 74])), expected[[24, 61, 74]])
    np.testing.assert_array_equal(first, expected[[23, 7]])
    if codec == "libx264":  # it has frames that no other refers to
        assert len(counted) < 0.8 * whole


def test_frames_whose_time_stamps_no_packet_has_are_counted(tmp_path):
    with Media(make.numbered(tmp_path / "a.mp4", duration_s=2.0)) as media:
        media.timeline()
        media._places = {stamp + 1: place for stamp, place in media._places.items()}
        assert [make.read_number(frame) for frame in media.frames(np.array([40, 3]))] == [40, 3]
        assert media._places is None


def test_frames_told_before_a_file_proves_odd_are_counted_again(tmp_path):
    with Media(make.numbered(tmp_path / "a.mp4", duration_s=2.0)) as media:
        media.timeline()
        # The first half is told wrongly, and the second not at all.
        media._places = {stamp: place + 1 for stamp, place in media._places.items() if place < 25}
        assert [make.read_number(frame) for frame in media.frames(np.array([3, 40]))] == [3, 40]
