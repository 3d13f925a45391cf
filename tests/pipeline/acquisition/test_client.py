"""The HTTP client against a server that misbehaves on demand."""

import time
from dataclasses import replace

import pytest

from pipeline.acquisition.client import Client, ClientSettings, address_kind, check_url
from pipeline.acquisition.refusals import STOP, Refusal
from pipeline.acquisition.web import WebSource, read_list
from pipeline.manifest import Clip, ManifestError
from tests.pipeline.acquisition.server import MisbehavingServer

# Long times, since the machine may be busy; short ones for those servers that use them up.
SETTINGS = ClientSettings(max_bytes=400_000, silence_s=30.0, total_s=60.0)
HURRIED = {"slow": replace(SETTINGS, total_s=1.0), "silent": replace(SETTINGS, silence_s=0.5)}
DATA = bytes(range(256)) * 400


@pytest.fixture
def server(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "v.mp4").write_bytes(DATA)
    with MisbehavingServer(tmp_path / "files", retry_after="7") as running:
        yield running


def test_a_good_answer(server, tmp_path):
    path = tmp_path / "got"
    assert Client(SETTINGS).fetch(f"{server.url}/ok/v.mp4", path) == "loopback"
    assert path.read_bytes() == DATA
    assert [left.name for left in tmp_path.glob("got*")] == ["got"]


@pytest.mark.parametrize(
    ("how", "outcome", "words"),
    [
        ("403", "transient", "HTTP Error 403"),
        ("404", "absent", "HTTP Error 404"),
        ("410", "removed", "HTTP Error 410"),
        ("429", "rate-limited", "HTTP Error 429"),
        ("503", "transient", "HTTP Error 503"),
        ("truncated", "truncated", "of 102400 bytes"),
        ("reset", "transient", "reset"),
        ("slow", "timeout", "not finished after 1 s"),
        ("silent", "transient", "nothing for 0.5 s"),
        ("endless", "too-large", "does not end"),
        ("redirect-file", "unavailable", "scheme 'file'"),
        ("redirect-private", "unavailable", "a private address"),
        ("redirect-link-local", "unavailable", "a link-local address"),
        ("redirect-loop", "unavailable", "redirects"),
    ],
)
def test_misbehaviour_has_a_name(server, tmp_path, how, outcome, words):
    with pytest.raises(Refusal) as caught:
        Client(HURRIED.get(how, SETTINGS)).fetch(f"{server.url}/{how}/v.mp4", tmp_path / "got")
    assert caught.value.outcome == outcome
    assert words in caught.value.message
    assert not (tmp_path / "got").exists()


def test_the_rate_limit_is_obeyed(server, tmp_path):
    started = time.monotonic()
    Client(ClientSettings(bytes_per_s=300_000)).fetch(f"{server.url}/ok/v.mp4", tmp_path / "got")
    assert time.monotonic() - started >= len(DATA) / 300_000


def test_retry_after_comes_through(server, tmp_path):
    with pytest.raises(Refusal) as caught:
        Client(SETTINGS).fetch(f"{server.url}/429/v.mp4", tmp_path / "got")
    assert (caught.value.retry_after_s, caught.value.again) == (7.0, STOP)


def test_a_broken_download_is_continued_by_range(server, tmp_path):
    client, url = Client(SETTINGS), f"{server.url}/cut-1/v.mp4"
    with pytest.raises(Refusal):
        client.fetch(url, tmp_path / "got")
    client.fetch(url, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    assert server.requests[-1][2] == f"bytes={len(DATA) // 2}-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "got.part").write_bytes(b"old")
    (tmp_path / "got.mark").write_text('"\\"x\\""')
    Client(SETTINGS).fetch(f"{server.url}/no-range/v.mp4", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_a_part_of_unknown_origin_is_not_continued(server, tmp_path):
    (tmp_path / "got.part").write_bytes(b"old")
    Client(SETTINGS).fetch(f"{server.url}/ok/v.mp4", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    assert server.requests[-1][2] is None


def test_redirects_stay_in_the_kind_of_network_they_began_in(server, tmp_path):
    Client(SETTINGS).fetch(f"{server.url}/redirect-ok/v.mp4", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    with pytest.raises(Refusal, match="a loopback address; refused"):  # as after a redirect from a public server
        Client(SETTINGS).fetch(f"{server.url}/ok/v.mp4", tmp_path / "other", {"public"})
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.1.2.3", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("8.8.8.8", "public"),
        ("2001:4860:4860::8888", "public"),
    ],
)
def test_kinds_of_address(address, kind):
    assert address_kind(address) == kind


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "http:///x",
        "http://me:pw@h/x",
        "http://h:0/x",
        "http://h:x/",
        "http://h/a\nb",
        "-x",
    ],
)
def test_urls_that_are_not_asked(url):
    with pytest.raises(Refusal) as caught:
        check_url(url)
    assert caught.value.outcome == "unavailable"
    assert "pw" not in caught.value.message


def test_lists(tmp_path):
    path = tmp_path / "list"
    path.write_text("# id url\n-a\thttp://h/a,b\n-b,http://h/b\n-c http://h/c extra\n")
    assert read_list(path) == {"-a": "http://h/a,b", "-b": "http://h/b", "-c": "http://h/c"}
    path.write_text("-a\n../x http://h/x\n-b file:///x\n-c http://h/1\n-c http://h/2\n")
    with pytest.raises(ManifestError) as caught:
        read_list(path)
    assert len(caught.value.problems) == 4


def test_a_list_on_the_server_and_a_template(server, tmp_path):
    (server.folder / "list").write_text(f"-a {server.url}/ok/v.mp4\n-b http://10.0.0.1/x\n")
    source = WebSource(f"{server.url}/ok/list", Client(SETTINGS), tmp_path / "work")
    place = source.locate(Clip("clip", "-a"))
    source.fetch(place, tmp_path)
    assert (tmp_path / "download").read_bytes() == DATA
    with pytest.raises(Refusal, match="a private address"):
        source.fetch(source.locate(Clip("-b", "-b")), tmp_path)
    template = WebSource("http://h/x?v={source_id}&c={clip_id}", Client(SETTINGS), tmp_path)
    assert template.locate(Clip("-a.b", "-a")).name == "http://h/x?v=-a&c=-a.b"
