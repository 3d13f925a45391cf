"""A careful HTTP client: fetches one file, continues it after a break, and is not led astray by redirects."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.acquisition import disk
from pipeline.acquisition.pace import RateLimit
from pipeline.acquisition.refusals import Refusal, from_status, parse_retry_after

_BLOCK_BYTES = 1 << 16
_REDIRECTS = 5
USER_AGENT = "clave/0.1 (research data sets; one download at a time)"


@dataclass(frozen=True)
class ClientSettings:
    """Limits of one download.

    Args:
        max_bytes: a longer body is given up.
        silence_s: longest wait for a connection or for the next bytes.
        total_s: longest time for one file.
        bytes_per_s: rate limit; None for none.
    """

    max_bytes: int = 2 << 30
    silence_s: float = 30.0
    total_s: float = 3600.0
    bytes_per_s: float | None = None


def address_kind(address: str) -> str:
    """`public`, or the kind of network that only this machine or its neighbours see.

    An IPv6 address that stands for an IPv4 one counts as that.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
    for kind in ("loopback", "link_local", "unspecified", "multicast", "reserved"):
        if getattr(ip, f"is_{kind}"):
            return kind.replace("_", "-")
    return "public" if ip.is_global else "private"


class _Connection(http.client.HTTPConnection):
    """Connects only to addresses of an allowed kind; the check and the connection use the same look-up."""

    secure = False

    def __init__(self, host: str, port: int, settings: ClientSettings, kinds: set[str] | None) -> None:
        super().__init__(host, port, timeout=settings.silence_s)
        self._kinds = kinds
        self.kind = "public"

    def connect(self) -> None:
        last: OSError | None = None
        for family, _, _, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            self.kind = address_kind(str(address[0]))
            if self._kinds is not None and self.kind not in self._kinds:
                raise Refusal("unavailable", f"redirected to {self.host}, a {self.kind} address; refused")
            try:
                self.sock = socket.socket(family, socket.SOCK_STREAM)
                self.sock.settimeout(self.timeout)
                self.sock.connect(address)
            except OSError as error:
                self.sock.close()
                last = error
                continue
            if self.secure:
                self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
            return
        raise last or OSError(f"{self.host} has no address")


class _SecureConnection(_Connection):
    secure = True
    default_port = 443


class Client:
    """Fetches files over http and https.

    Args:
        settings: limits.
        clock: seconds, for the total time; replaced in tests.
    """

    def __init__(self, settings: ClientSettings | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings or ClientSettings()
        self._clock = clock

    def fetch(self, url: str, path: Path, kinds: set[str] | None = None) -> str:
        """Write the body of `url` to `path`, continuing `path`.part if an earlier try left it.

        Args:
            kinds: kinds of address that `url` itself may have; None for any, since the user named it.  A redirect may
                lead to public addresses and to the kind of the first one.
        Returns:
            The kind of address that the body of `url` came from, before any redirect.
        Raises:
            Refusal: with the outcome.
            OSError: the disk is full or broken.
        """
        first_kind, deadline_s = "", self._clock() + self.settings.total_s
        for _ in range(_REDIRECTS + 1):
            parts = check_url(url)
            connection = self._connect(parts, kinds)
            try:
                response = self._ask(connection, parts, path)
                first_kind = first_kind or connection.kind
                if response.status in (301, 302, 303, 307, 308):
                    target = response.getheader("Location")
                    if not target:
                        raise Refusal("unavailable", f"HTTP {response.status} without a Location")
                    url = urllib.parse.urljoin(url, target)
                    kinds = {"public", first_kind}
                    continue
                self._receive(response, path, deadline_s)
                return first_kind
            except Refusal:
                raise
            except TimeoutError as error:
                raise Refusal("transient", f"timed out: nothing for {self.settings.silence_s:g} s") from error
            except ssl.SSLCertVerificationError as error:
                raise Refusal("unavailable", f"certificate: {error.verify_message}") from error
            except (OSError, http.client.HTTPException) as error:
                disk.check_error(error, path)
                raise Refusal("transient", f"{type(error).__name__}: {error}") from error
            finally:
                connection.close()
        raise Refusal("unavailable", f"more than {_REDIRECTS} redirects")

    def _connect(self, parts: urllib.parse.SplitResult, kinds: set[str] | None) -> _Connection:
        make = _SecureConnection if parts.scheme == "https" else _Connection
        return make(parts.hostname, parts.port or make.default_port, self.settings, kinds)

    def _ask(self, connection: _Connection, parts: urllib.parse.SplitResult, path: Path) -> http.client.HTTPResponse:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        part, mark = _part(path), _read_mark(path)
        if part.is_file() and mark:
            headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": mark}
        else:
            part.unlink(missing_ok=True)
        target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _receive(self, response: http.client.HTTPResponse, path: Path, deadline_s: float) -> None:
        part = _part(path)
        have = part.stat().st_size if part.is_file() else 0
        if response.status == 416 and have:
            part.unlink()
            raise Refusal("transient", "HTTP Error 416: the server cannot continue; the next try starts afresh")
        if response.status not in (200, 206):
            asked_s = parse_retry_after(response.getheader("Retry-After"), time.time())
            raise from_status(response.status, response.reason, asked_s)
        continued = response.status == 206 and _starts_at(response.getheader("Content-Range"), have)
        if response.status == 206 and not continued:
            part.unlink(missing_ok=True)
            raise Refusal("transient", "the server continued at another byte; the next try starts afresh")
        total = have if continued else 0
        length = response.getheader("Content-Length")
        expected = total + int(length) if length and length.isdecimal() else None
        if expected is not None and expected > self.settings.max_bytes:
            raise Refusal("too-large", f"{expected} bytes, more than --max-size {self.settings.max_bytes}")
        _write_mark(path, response)
        limit = RateLimit(self.settings.bytes_per_s)
        with open(part, "ab" if continued else "wb") as file:
            while block := self._read(response):
                total += len(block)
                if total > self.settings.max_bytes:
                    file.truncate(0)
                    raise Refusal(
                        "too-large", f"the body does not end after --max-size {self.settings.max_bytes} bytes"
                    )
                file.write(block)
                limit.add(len(block))
                if self._clock() > deadline_s:
                    raise Refusal("timeout", f"not finished after {self.settings.total_s:g} s; {total} bytes came")
        if expected is not None and total != expected:
            raise Refusal("truncated", f"connection closed after {total} of {expected} bytes")
        part.replace(path)
        _mark(path).unlink(missing_ok=True)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(_BLOCK_BYTES)
        except http.client.IncompleteRead as error:
            raise Refusal("truncated", f"connection closed in mid chunk: {error}") from error


def check_url(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL that may be asked.

    Raises:
        Refusal: another scheme than http and https, no host, a password, or characters that no URL has.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refusal("unavailable", f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise Refusal("unavailable", f"scheme {parts.scheme!r} of {url[:200]!r}: only http and https are fetched")
    if not parts.hostname or port == 0 or any(character <= " " or character == "\x7f" for character in url):
        raise Refusal("unavailable", f"{url[:200]!r} is no URL with a host")
    if parts.username is not None:
        raise Refusal("unavailable", f"the URL on {parts.hostname} carries a user name; that would end up in logs")
    return parts


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".mark")


def _read_mark(path: Path) -> str:
    """What identifies the version that the part is of; `` if the server gave nothing."""
    try:
        return str(json.loads(_mark(path).read_text()))
    except (OSError, ValueError):
        return ""


def _write_mark(path: Path, response: http.client.HTTPResponse) -> None:
    tag = response.getheader("ETag") or ""
    mark = response.getheader("Last-Modified") or "" if tag.startswith("W/") or not tag else tag
    _mark(path).write_text(json.dumps(mark))


def _starts_at(content_range: str | None, have: int) -> bool:
    return (content_range or "").replace(" ", "").lower().startswith(f"bytes{have}-")
