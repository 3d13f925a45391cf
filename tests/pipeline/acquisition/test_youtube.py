"""yt-dlp: its generic extractor against the misbehaving server, and a scripted extractor with every message."""

import pytest
import yt_dlp
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.utils import ExtractorError

from pipeline.acquisition.refusals import Refusal
from pipeline.acquisition.youtube import WATCH, YoutubeSettings, YoutubeSource, read_cookies
from pipeline.manifest import Clip
from tests.pipeline.acquisition.server import MisbehavingServer
from tests.pipeline.acquisition.test_refusals import MESSAGES

SETTINGS = YoutubeSettings(max_bytes=1 << 20, silence_s=30.0, request_pause_s=0.0, tries=2)
CLIP = Clip("-aBcDeFgHiJ_2_4", "-aBcDeFgHiJ", 2.0, 2.0)


@pytest.fixture
def server(video):
    with MisbehavingServer(video.parent, retry_after="7") as running:
        yield running


def _fetch(server, how, folder, settings=SETTINGS):
    source = YoutubeSource(settings, f"{server.url}/{how}/v.mp4?v={{source_id}}")
    folder.mkdir(exist_ok=True)
    return source.fetch(source.locate(CLIP), folder)


@pytest.mark.parametrize("how", ["ok", "cut-2", "redirect-ok"])
def test_the_generic_extractor_brings_the_file(server, video, tmp_path, how):
    fetched = _fetch(server, how, tmp_path / "work")
    assert fetched.path.read_bytes() == video.read_bytes()
    assert fetched.path.name == "video.mp4"
    assert fetched.owned
    assert "v=-aBcDeFgHiJ" in server.gets()[0]


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("403", "transient"),
        ("404", "absent"),
        ("410", "removed"),
        ("429", "rate-limited"),
        ("503", "transient"),
        ("truncated", "transient"),
        ("wrong", "not-media"),
        ("endless", "too-large"),
    ],
)
def test_misbehaviour_has_a_name(server, tmp_path, how, outcome):
    with pytest.raises(Refusal) as caught:
        _fetch(server, how, tmp_path / "work")
    assert caught.value.outcome == outcome
    assert caught.value.retry_after_s == (7.0 if how in ("429", "503") else None)


def test_a_part_left_by_a_dead_run_is_continued(server, video, tmp_path):
    half = video.stat().st_size // 2
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "video.mp4.part").write_bytes(video.read_bytes()[:half])
    assert _fetch(server, "ok", tmp_path / "work").path.read_bytes() == video.read_bytes()
    assert any(asked == f"bytes={half}-" for _, _, asked in server.requests)


def _script(monkeypatch, reason):
    """Make every URL end in an error of the site's own words, or in the formats given."""

    class ScriptedIE(InfoExtractor):
        IE_NAME = "scripted"
        _VALID_URL = r"http://scripted/.*"

        def _real_extract(self, url):
            if isinstance(reason, str):
                raise ExtractorError(reason, expected=True)
            return {"id": "x", "title": "x", **reason}

    monkeypatch.setattr(
        yt_dlp.YoutubeDL, "add_default_info_extractors", lambda self: self.add_info_extractor(ScriptedIE())
    )
    return YoutubeSource(SETTINGS, "http://scripted/{source_id}")


@pytest.mark.parametrize(("message", "outcome", "again"), MESSAGES)
def test_every_message_through_yt_dlp(monkeypatch, tmp_path, message, outcome, again):
    source = _script(monkeypatch, message)
    with pytest.raises(Refusal) as caught:
        source.fetch(source.locate(CLIP), tmp_path)
    assert (caught.value.outcome, caught.value.again) == (outcome, again)
    assert message in caught.value.message


@pytest.mark.parametrize("status", ["is_live", "is_upcoming"])
def test_live_streams_are_not_recorded(monkeypatch, tmp_path, server, status):
    formats = [{"format_id": "1", "url": f"{server.url}/endless/v.mp4", "ext": "mp4"}]
    source = _script(monkeypatch, {"formats": formats, "live_status": status})
    with pytest.raises(Refusal, match="live event") as caught:
        source.fetch(source.locate(CLIP), tmp_path)
    assert caught.value.outcome == "unavailable"
    assert not server.gets()


def test_low_resolution_is_chosen_and_a_looser_choice_made_once(monkeypatch, tmp_path, server, video):
    def sized(*heights):
        return [
            {"format_id": str(h), "url": f"{server.url}/ok/v.mp4?h={h}", "ext": "mp4", "height": h, "acodec": "aac"}
            for h in heights
        ]

    source = _script(monkeypatch, {"formats": sized(240, 480, 1080)})
    assert source.fetch(source.locate(CLIP), tmp_path).path.stat().st_size == video.stat().st_size
    assert server.gets() == ["/ok/v.mp4?h=480"]
    tries = []
    monkeypatch.setattr(
        YoutubeSource, "_download", lambda self, url, folder, wanted: tries.append(wanted) or _raise("format")
    )
    with pytest.raises(Refusal):
        source.fetch(source.locate(CLIP), tmp_path)
    assert len(tries) == 2
    assert tries[0] != tries[1]


def _raise(outcome):
    raise Refusal(outcome, "Requested format is not available")


def test_an_id_with_a_dash_is_part_of_a_url_and_no_other_extractor_is_used():
    source = YoutubeSource()
    assert source.locate(CLIP).name == "https://www.youtube.com/watch?v=-aBcDeFgHiJ"
    options = source._options(None, "b", None, None, None)
    assert (source.template, options["allowed_extractors"]) == (WATCH, ["youtube"])
    assert options["geo_bypass"] is False
    assert "cookiefile" not in options
    assert "cookiesfrombrowser" not in options
    with pytest.raises(ValueError, match="not safe"):
        source.locate(Clip("a", "../x"))


def test_cookies_are_sent_not_shown_and_their_file_is_not_touched(server, tmp_path):
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\thunter2\n")
    before = path.read_bytes()
    settings = YoutubeSettings(request_pause_s=0.0, cookies=read_cookies(path))
    assert "hunter2" not in repr(settings)
    _fetch(server, "ok", tmp_path / "work", settings)
    assert path.read_bytes() == before
    assert not any("hunter2" in left.read_text(errors="replace") for left in (tmp_path / "work").iterdir())
    path.write_text("session=hunter2")
    with pytest.raises(ValueError, match="no cookies file") as caught:
        read_cookies(path)
    assert "hunter2" not in str(caught.value)


def test_yt_dlps_own_archive_is_written_and_honoured(server, tmp_path):
    settings = YoutubeSettings(request_pause_s=0.0, archive=tmp_path / "archive.txt")
    _fetch(server, "ok", tmp_path / "a", settings)
    assert (tmp_path / "archive.txt").read_text().startswith("generic ")
    with pytest.raises(Refusal) as caught:
        _fetch(server, "ok", tmp_path / "b", settings)
    assert caught.value.outcome == "absent"
