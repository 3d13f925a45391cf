"""YouTube videos through yt-dlp's Python API: one file per video, low resolution, nothing circumvented."""

from __future__ import annotations

import io
import shutil
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.acquisition import disk
from pipeline.acquisition.cut import ffmpeg_program
from pipeline.acquisition.refusals import Refusal, classify, parse_retry_after
from pipeline.acquisition.source import EITHER, VIDEO, Fetched, Place
from pipeline.manifest import Clip, check_id

#: Programs one of which yt-dlp wants on the PATH to run YouTube's own scripts.
JS_RUNTIMES = ("deno", "node", "bun")
WATCH = "https://www.youtube.com/watch?v={source_id}"


@dataclass(frozen=True)
class YoutubeSettings:
    """How yt-dlp is asked.

    Args:
        max_height: of the video stream; the published clips are 320x240.
        max_bytes: a longer download is given up.
        bytes_per_s: rate limit; None for none.
        silence_s: longest wait for the next bytes.
        request_pause_s: between the requests that one video takes.
        tries: of yt-dlp within one download, each continuing the last.
        cookies: text of a cookies file, or None.  It is kept in memory and never written anywhere.
        archive: yt-dlp's own list of finished downloads, honoured and written; or None.
    """

    max_height: int = 480
    max_bytes: int = 2 << 30
    bytes_per_s: float | None = None
    silence_s: float = 30.0
    request_pause_s: float = 0.75
    tries: int = 3
    cookies: str | None = None
    archive: Path | None = None

    def __repr__(self) -> str:
        return f"YoutubeSettings(max_height={self.max_height}, cookies={'given' if self.cookies else 'none'})"


class YoutubeSource:
    """Videos by their YouTube id.

    Args:
        settings: see `YoutubeSettings`.
        template: URL with `{source_id}`; another than YouTube's goes to yt-dlp's other extractors.
        holds: `videos` on YouTube.
    """

    name, remote = "youtube", True

    def __init__(self, settings: YoutubeSettings | None = None, template: str = WATCH, holds: str = EITHER) -> None:
        self.settings, self.template = settings or YoutubeSettings(), template
        self.holds = VIDEO if holds == EITHER else holds

    def locate(self, clip: Clip) -> Place | None:
        # The id only ever stands inside a URL, so one that begins with a dash cannot become an option.
        name = urllib.parse.quote(check_id(clip.source_id, "source id"), safe="")
        return Place(self.template.replace("{source_id}", name), self.holds)

    def size(self, place: Place) -> int | None:
        return None

    def versions(self) -> dict[str, str]:
        from yt_dlp.version import __version__

        return {"yt-dlp": __version__}

    def fetch(self, place: Place, folder: Path) -> Fetched:
        try:
            return self._download(place.name, folder, self._format(self.settings.max_height))
        except Refusal as refusal:
            if refusal.outcome != "format":
                raise
        return self._download(place.name, folder, "bv*+ba/b")  # once, with a looser choice

    @staticmethod
    def _format(height: int) -> str:
        return f"bv*[height<={height}]+ba/b[height<={height}]/b"

    def _download(self, url: str, folder: Path, wanted: str) -> Fetched:
        import yt_dlp

        log = _Log()
        refused: list[Refusal] = []

        def watch(progress: dict[str, Any]) -> None:
            if progress.get("downloaded_bytes", 0) > self.settings.max_bytes:
                refused.append(
                    Refusal("too-large", f"the body does not end after --max-size {self.settings.max_bytes} bytes")
                )
                raise yt_dlp.utils.DownloadCancelled(refused[0].message)

        def no_live(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
            if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
                refused.append(Refusal("unavailable", f"live event: {info.get('live_status')}"))
                return "live event"
            return None

        try:
            with yt_dlp.YoutubeDL(self._options(folder, wanted, log, watch, no_live)) as downloader:
                downloader.extract_info(url, download=True)
        except yt_dlp.utils.YoutubeDLError as error:
            disk.check_error(error, folder)
            disk.check_words(str(error), folder)  # ffmpeg's, which joins the streams
            raise (refused[0] if refused else _refusal(error, log)) from error
        except Exception as error:  # a change of the site surfaces as any error inside an extractor
            disk.check_error(error, folder)
            raise classify(f"{type(error).__name__}: {error}") from error
        if refused:
            raise refused[0]
        files = [path for path in folder.iterdir() if path.stem == "video" and path.suffix not in (".part", ".ytdl")]
        if not files:
            raise self._explain(log)
        return Fetched(files[0], owned=True)

    def _explain(self, log: _Log) -> Refusal:
        words = log.last() or "yt-dlp ended without an error and without a file"
        if "max-filesize" in words:
            return Refusal("too-large", words)
        if "recorded in the archive" in words:
            return Refusal("absent", f"{words}; its file is not here")
        return classify(words)

    def _options(self, folder: Path, wanted: str, log: _Log, watch: Any, no_live: Any) -> dict[str, Any]:
        settings = self.settings
        own = urllib.parse.urlsplit(self.template).hostname in ("www.youtube.com", "youtube.com", "youtu.be")
        options = {
            "format": wanted,
            "outtmpl": {"default": "video.%(ext)s"},
            "paths": {"home": str(folder)},
            "merge_output_format": "mkv",
            "ffmpeg_location": ffmpeg_program(),
            "allowed_extractors": ["youtube"] if own else ["default"],
            "noplaylist": True,
            "playlist_items": "1",
            "match_filter": no_live,
            "progress_hooks": [watch],
            "logger": log,
            "noprogress": True,
            "quiet": True,
            "color": "never",
            "continuedl": True,
            "overwrites": False,
            "retries": settings.tries,
            "fragment_retries": settings.tries,
            "extractor_retries": 1,
            "socket_timeout": settings.silence_s,
            "retry_sleep_functions": dict.fromkeys(
                ("http", "fragment"), lambda n: min(settings.request_pause_s * 2 ** (n + 1), 60.0)
            ),
            "sleep_interval_requests": settings.request_pause_s,
            "js_runtimes": {name: {} for name in JS_RUNTIMES},
            "ratelimit": settings.bytes_per_s,
            "max_filesize": settings.max_bytes,
            "geo_bypass": False,
            "usenetrc": False,
            "cachedir": False,
            "writeinfojson": False,
            "updatetime": False,
            "download_archive": str(settings.archive) if settings.archive else None,
        }
        if settings.cookies is not None:
            options["cookiefile"] = io.StringIO(settings.cookies)
        return options


class _Log:
    """Keeps yt-dlp's words instead of printing them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, message: str) -> None:
        if not message.startswith("[debug]"):
            self.lines.append(message)

    info = debug

    def warning(self, message: str) -> None:
        self.lines.append(f"WARNING: {message}")

    def error(self, message: str) -> None:
        self.lines.append(message)

    def last(self) -> str:
        return self.lines[-1] if self.lines else ""


def _refusal(error: Exception, log: _Log) -> Refusal:
    """The refusal behind an exception of yt-dlp, with the server's Retry-After if there is one."""
    cause = (getattr(error, "exc_info", None) or (None, None))[1]
    while cause is not None:
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None:
            return classify(str(error), parse_retry_after(headers.get("Retry-After"), time.time()))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return classify(str(error) or log.last())


def runtime_hint() -> str:
    """What to install before YouTube is asked, or ``."""
    if any(shutil.which(name) for name in JS_RUNTIMES):
        return ""
    return f"none of {', '.join(JS_RUNTIMES)} is on the PATH: yt-dlp needs one for most videos of YouTube itself"


def read_cookies(path: Path) -> str:
    """The text of a cookies file in Netscape's format.

    Raises:
        ValueError: it is not one; its content is not shown.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("# ")]
    if not lines or not all(line.startswith("#") or line.count("\t") == 6 for line in lines):
        raise ValueError(f"{path}: no cookies file in Netscape format (seven fields separated by tabs a line)")
    return text
