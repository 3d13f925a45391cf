"""Checkpoints in the cache: fetched once, resumed, and never left damaged."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from extractors.download import fetch
from extractors.weights import Weights, WeightsError
from tests.pipeline.acquisition.server import QuietServer

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def server():
    """A publisher that takes its time for the second half; `ranges` are the Range headers of the requests."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            self.server.ranges.append(asked)
            start = int(asked.split("=")[1].rstrip("-")) if asked else 0
            body = CONTENT[start:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(0.3)
            self.wfile.write(body[len(body) // 2 :])

    with QuietServer(("127.0.0.1", 0), Handler) as running:
        running.ranges = []
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def record(server):
    digest = hashlib.sha256(CONTENT).hexdigest()
    url = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
    return Weights("net", "net.pth", url, "the page", len(CONTENT), digest)


def test_several_at_once_fetch_one_file_once(server, record, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: fetch(record, tmp_path), range(3)))
    assert found == [(tmp_path / "net.pth", record.sha256)] * 3
    assert server.ranges == [None]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert not (tmp_path / "net.pth.partial").exists()


def test_a_partial_download_is_continued_and_a_damaged_file_replaced(server, record, tmp_path):
    (tmp_path / "net.pth").write_bytes(CONTENT[::-1])
    (tmp_path / "net.pth.partial").write_bytes(CONTENT[:1000])
    fetch(record, tmp_path)
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_damaged_file_that_nobody_offers_is_named(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"net\.pth: 5 bytes, net has 16384"):
        fetch(Weights("net", "net.pth", None, "the page", len(CONTENT)), tmp_path)


def test_offline_the_file_its_place_address_and_digest_are_named(tmp_path):
    offline = Weights("net", "net.pth", "http://127.0.0.1:1/net.pth", "the page", 5, "ab12cd34" * 8)
    with pytest.raises(WeightsError) as error:
        fetch(offline, tmp_path)
    digest = "SHA-256 " + "ab12cd34" * 8
    for part in (f"{tmp_path}/net.pth", "http://127.0.0.1:1/net.pth", "the page", "5 bytes", digest):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match="SHA-256 beginning with ab12cd34"):
        fetch(Weights("net", "net.pth", None, "the page", None, "ab12cd34"), tmp_path)
    with pytest.raises(WeightsError, match="no SHA-256 is published"):
        fetch(Weights("net", "net.pth", None, "the page"), tmp_path)


def test_offline_a_file_that_was_placed_and_is_another_one_is_said_to_be(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"other")
    offline = Weights("net", "net.pth", "http://127.0.0.1:1/net.pth", "the page", len(CONTENT))
    with pytest.raises(WeightsError, match=r"net\.pth: 5 bytes, net has 16384.*could not download"):
        fetch(offline, tmp_path)


def test_a_cache_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no folder to download to .*file/weights.*Set CLAVE_WEIGHTS"):
        fetch(Weights("net", "net.pth", "http://127.0.0.1:1/net.pth", "the page"), tmp_path / "file" / "weights")
