"""Frames: which are decoded, which are kept, and files whose time stamps do not tell them."""

import av
import numpy as np
import pytest

from pipeline.frames import Frames
from pipeline.media import Media
from pipeline.mediafile import FramesMissing, MediaError
from tests import media_factory as make


def test_only_wanted_frames_are_kept(tmp_path):
    with Media(make.numbered(tmp_path / "a.mp4", duration_s=2.0)) as media:
        media.want(np.array([2, 30]))
        media.frames(np.array([30]))
        assert sorted(media._frames._cache) == [2, 30]
        media.want(np.array([40]))
        assert sorted(media._frames._cache) == []


def watch(monkeypatch) -> list[int]:
    """Counts the frames that come out of the decoder."""
    counted = []
    real = Frames._decode

    def decode(self):
        for number, frame in real(self):
            counted.append(number)
            yield number, frame

    monkeypatch.setattr(Frames, "_decode", decode)
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
        media._frames._places = {stamp + 1: place for stamp, place in media._frames._places.items()}
        assert [make.read_number(frame) for frame in media.frames(np.array([40, 3]))] == [40, 3]
        assert media._frames._places is None


def test_frames_told_before_a_file_proves_odd_are_counted_again(tmp_path):
    with Media(make.numbered(tmp_path / "a.mp4", duration_s=2.0)) as media:
        media.timeline()
        # The first half is told wrongly, and the second not at all.
        media._frames._places = {stamp: place + 1 for stamp, place in media._frames._places.items() if place < 25}
        assert [make.read_number(frame) for frame in media.frames(np.array([3, 40]))] == [3, 40]


def joined(path, *sources):
    """The pictures of several files, one after the other, in one stream that says the size of the first."""
    with av.open(str(path), "w") as write:
        stream, start = None, 0
        for source in sources:
            with av.open(str(source)) as read:
                stream = stream or write.add_stream_from_template(read.streams.video[0])
                packets = [packet for packet in read.demux(video=0) if packet.size]
                for packet in packets:
                    packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, stream
                    write.mux(packet)
                start += 1000
    return path


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_frames_of_another_size_are_scaled_to_the_first(tmp_path, codec):
    sources = [
        make.numbered(
            tmp_path / f"{width}.webm", duration_s=1.0, width=width, height=height, video_codec=codec, audio=False
        )
        for width, height in ((320, 240), (160, 120), (480, 352))
    ]
    with Media(joined(tmp_path / "a.mkv", *sources)) as media:
        frames = media.frames(np.arange(75))
    assert frames.shape == (75, 240, 320, 3)
    assert [make.read_number(frame) for frame in frames] == [*range(25)] * 3
    with Media(sources[0]) as media:
        np.testing.assert_array_equal(frames[:25], media.frames(np.arange(25)))
    with Media(tmp_path / "a.mkv") as media:  # whichever is asked for first
        np.testing.assert_array_equal(media.frames(np.array([60, 30])), frames[[60, 30]])
    with Media(tmp_path / "a.mkv") as media:
        media.want(np.array([60]))
        np.testing.assert_array_equal(media.frames(np.array([60])), frames[[60]])


def counted(media: Media, seconds: float) -> tuple[list[int], list[int]]:
    """Numbers on the frames nearest to every 25th of a second, and those that were expected, as if none were lost."""
    media.check_whole()
    for _ in range(2):
        times_s = media.timeline()
        wanted = np.arange(round(seconds * 25))
        nearest = np.abs(times_s[None] - wanted[:, None] / 25).argmin(axis=1)
        try:
            return [make.read_number(frame) for frame in media.frames(nearest)], (
                times_s[nearest] * 25
            ).round().tolist()
        except FramesMissing:
            media.recount()
    raise AssertionError("frames are missing still")


@pytest.mark.parametrize("lost", [[20], [24]])  # 24 is a key frame
def test_a_frame_that_does_not_decode_leaves_a_gap(tmp_path, lost):
    path = make.damaged(tmp_path / "a.mp4", lost, video=True, duration_s=3.0)
    with Media(path) as media:
        found, shown = counted(media, 3.0)
        assert media.video_end_s == pytest.approx(3.0)
        # Frames that lean on a lost one may go with it, at most to the next key frame.
        assert 75 - 12 * len(lost) <= len(media.timeline()) < 75
    assert found == shown
    assert np.abs(np.array(found) - np.arange(75)).max() <= 12


def test_a_second_of_frames_that_do_not_decode_is_a_reason(tmp_path):
    path = make.damaged(tmp_path / "a.mp4", range(15, 45), video=True, duration_s=3.0)
    with Media(path) as media:
        with pytest.raises(MediaError, match=r"a.mp4: 1.\d\d s of its pictures do not decode") as caught:
            counted(media, 3.0)
        assert caught.value.outcome == "decode-error"
        assert len(media.audio(None)) / 44_100 == pytest.approx(3.0, abs=0.03)
