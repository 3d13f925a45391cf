"""A small HTTP server on loopback that serves real files and misbehaves on demand.

The first path segment says how: `/ok/x.mp4`, `/404/x.mp4`, `/flaky-2/x.mp4`, ...; the last names the file.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class QuietServer(ThreadingHTTPServer):
    """A client that hangs up is part of a test; told on stderr, it would be told in the midst of another one."""

    def handle_error(self, *_: object) -> None:
        pass


class MisbehavingServer:
    """Serves the files of a folder; use with `with`.

    Behaviours: `ok`, a status number, `flaky-N` (503 for the first N requests), `refuse-N` (403 for the first N),
    `cut-N` (the first N responses break in the middle), `reset` (connection reset in the middle), `truncated` (always
    ends early), `slow` (a few bytes a second), `silent` (headers, then nothing), `wrong` (a web page instead),
    `endless`, `redirect-file`, `redirect-private`, `redirect-link-local`, `redirect-ok`, `redirect-loop`, `no-range`.

    Attributes:
        requests: (method, path, Range header or None), in order.
        retry_after: sent with 429 and 503 if not None.
    """

    def __init__(self, folder: Path, retry_after: str | None = None) -> None:
        self.folder, self.retry_after = folder, retry_after
        self.requests: list[tuple[str, str, str | None]] = []
        self.seen: Counter[str] = Counter()
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> MisbehavingServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self) -> list[str]:
        """Paths of the GET requests."""
        return [path for method, path, _ in self.requests if method == "GET"]


def _handler(server: MisbehavingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            with server.lock:
                server.active += 1
                server.most_active = max(server.most_active, server.active)
            try:
                with contextlib.suppress(ConnectionError):
                    self._serve(body=True)
            finally:
                with server.lock:
                    server.active -= 1

        def _serve(self, body: bool) -> None:
            server.requests.append((self.command, self.path, self.headers.get("Range")))
            how, _, name = self.path.lstrip("/").split("?")[0].partition("/")
            with server.lock:
                server.seen[self.path] += body
                times = server.seen[self.path]
            behaviour, dash, count = how.rpartition("-")
            first = dash == "-" and count.isdecimal() and times <= int(count)
            how = behaviour if dash and count.isdecimal() else how
            if how.isdecimal() or (how == "flaky" and first) or (how == "refuse" and first):
                self._status(int(how) if how.isdecimal() else 503 if how == "flaky" else 403)
            elif how.startswith("redirect"):
                self._redirect(how, name)
            elif how == "wrong":
                self._whole(b"<!DOCTYPE html><html><body>Please log in</body></html>" * 30, "text/html", body)
            elif how == "endless":
                self._endless()
            else:
                self._file(how, name, first, body)

        def _status(self, status: int) -> None:
            text = b"no"
            self.send_response(status)
            if server.retry_after is not None and status in (429, 503):
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text)

        def _redirect(self, how: str, name: str) -> None:
            target = {
                "redirect-file": "file:///etc/hostname",
                "redirect-private": "http://10.0.0.1/x.mp4",
                "redirect-link-local": "http://169.254.169.254/latest/meta-data",
                "redirect-loop": f"/redirect-loop/{name}",
                "redirect-ok": f"/ok/{name}",
            }[how]
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _whole(self, data: bytes, kind: str, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def _endless(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            while self.command == "GET":
                self.wfile.write(b"\0" * 65536)

        def _file(self, how: str, name: str, first: bool, body: bool) -> None:
            path = server.folder / Path(name).name
            if not path.is_file():
                self._status(404)
                return
            data = path.read_bytes()
            start = 0
            asked = self.headers.get("Range")
            if asked and how != "no-range":
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                if start >= len(data):
                    self._status(416)
                    return
            self.send_response(206 if start or (asked and how != "no-range") else 200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(data) - start))
            if how != "no-range":
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", f'"{len(data)}"')
            self.end_headers()
            if body:
                self._body(how, data[start:], first)

        def _body(self, how: str, data: bytes, first: bool) -> None:
            half = len(data) // 2
            if how == "truncated" or (how == "cut" and first):
                self.wfile.write(data[:half])
                self.close_connection = True
            elif how == "reset":
                self.wfile.write(data[:half])
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            elif how == "slow":
                for offset in range(0, len(data), 64):
                    self.wfile.write(data[offset : offset + 64])
                    self.wfile.flush()
                    time.sleep(0.05)
            elif how == "silent":
                time.sleep(30)
            else:
                self.wfile.write(data)

    return Handler
