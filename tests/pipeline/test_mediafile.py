"""Files: where a clip's is looked for, and what does not open."""

import functools
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import mediafile
from pipeline.manifest import Clip
from pipeline.media import Media
from pipeline.mediafile import MediaError, find
from tests import media_factory as make
from tests.real_data import clip_file


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


def fragmented(path: Path) -> Path:
    """As streams are recorded: the header lists no frame."""
    source = make.numbered(path.with_name("source.mp4"))
    with av.open(str(source)) as read, av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


KINDS = {
    "fragments.mp4": fragmented,
    "plain.mp4": make.numbered,
    "turned.mp4": make.rotated,
    "odd.mp4": make.odd_size,
    "uneven.mp4": lambda path: make.variable_rate(path)[0],
    "one.mp4": make.one_frame,
    "silent.mp4": make.no_audio,
    "blind.mp4": make.no_video,
    "phone.mov": functools.partial(make.numbered, audio_codec="pcm_s16le"),
    "hevc.mp4": functools.partial(make.numbered, video_codec="libx265"),
    "old.mp4": functools.partial(make.numbered, video_codec="mpeg4"),
    "box.mkv": functools.partial(make.numbered, audio_codec="flac"),
    "uneven.mkv": lambda path: make.variable_rate(path)[0],
    "web.webm": functools.partial(make.numbered, video_codec="libvpx-vp9", audio_codec="libopus", rate_hz=48_000),
    "stream.ts": functools.partial(make.numbered, video_codec="mpeg2video", audio_codec="mp2"),
    "old.avi": functools.partial(make.numbered, video_codec="mpeg4", audio_codec="mp3"),
}


def everything(path, start_s=0.0, length_s=None) -> list:
    """All that a clip's rows are made of."""
    with Media(path, start_s, length_s) as media:
        facts = [media.has_video, media.has_audio, media.frame_size, media.audio_rate_hz, media.duration_s]
        facts += [media.stated_s, media.video_end_s, media.audio_end_s, media.timeline()]
        if media.has_audio:
            facts.append(media.audio(None, mono=False))
        if media.has_video:
            facts.append(media.frames(np.arange(len(media.timeline()))[::7]))
        return facts


def check_light_opening(monkeypatch, path, cuts) -> None:
    light = [everything(path, *cut) for cut in cuts]
    monkeypatch.setattr(mediafile, "_TOLD_BY_HEADER", ())
    for found, cut in zip(light, cuts, strict=True):
        for one, other in zip(found, everything(path, *cut), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", KINDS)
def test_opening_without_a_look_at_the_pictures_changes_nothing(tmp_path, monkeypatch, name):
    cuts = [(0.0, None)] if name == "one.mp4" else [(0.0, None), (0.7, 1.0)]
    check_light_opening(monkeypatch, KINDS[name](tmp_path / name), cuts)


@pytest.mark.parametrize("name", ["BjCEufrlXm4.mp4", "v_GGSY1Qvo990.mp4", "--HuBNHXu9I.mp4"])
def test_nor_does_it_for_real_clips(monkeypatch, name):
    check_light_opening(monkeypatch, clip_file(name), [(0.0, None), (3.0, 5.0)])


def test_a_file_that_nothing_here_decodes_says_so(tmp_path):
    with pytest.raises(MediaError, match=r"a.mp4: this FFmpeg has no decoder for its video stream") as caught:
        Media(make.unknown_coding(tmp_path / "a.mp4", audio=False))
    assert caught.value.outcome == "decode-error"
