"""Why a clip was not delivered: the words of sites and tools, turned into outcomes of the closed list.

The fragments are yt-dlp's and YouTube's, as of 2026; the raw message is kept in the ledger beside the outcome.
"""

from __future__ import annotations

import re

#: What may be tried again: `stop` ends the run and waits, `later` is worth another try, `never` only when asked.
STOP, LATER, NEVER = "stop", "later", "never"

#: Lower-case fragments in the order in which they are looked for; the first that occurs decides.  The narrow ones
#: precede the wide ones: a copyright block often reads "Video unavailable. This video ... copyright claim by ...".
FRAGMENTS: tuple[tuple[str, str], ...] = (
    ("not a bot", "bot-check"),
    ("http error 429", "rate-limited"),
    ("too many requests", "rate-limited"),
    ("rate-limited by youtube", "rate-limited"),
    ("confirm your age", "age-gated"),
    ("age-restricted", "age-gated"),
    ("copyright", "copyright"),
    ("removed for violating", "copyright"),
    ("available in your country", "geo-blocked"),
    ("not available from your location", "geo-blocked"),
    ("blocked it in your country", "geo-blocked"),
    ("private video", "private"),
    ("video is private", "private"),
    ("members-only", "unavailable"),
    ("members only", "unavailable"),
    ("members on level", "unavailable"),
    ("join this channel", "unavailable"),
    ("premiere", "unavailable"),
    ("live event", "unavailable"),
    ("live stream", "unavailable"),
    ("removed by the uploader", "removed"),
    ("account associated with this video has been terminated", "removed"),
    ("account was terminated", "removed"),
    ("no longer available", "removed"),
    ("has been removed", "removed"),
    ("http error 410", "removed"),
    ("http error 404", "absent"),
    ("requested format is not available", "format"),
    ("unsupported url", "not-media"),  # a web page without a video
    ("http error 403", "transient"),
    ("http error 408", "transient"),
    ("http error 5", "transient"),
    ("timed out", "transient"),
    ("timeout", "transient"),
    ("connection reset", "transient"),
    ("connection refused", "transient"),
    ("connection aborted", "transient"),
    ("connection broken", "transient"),
    ("remote end closed", "transient"),
    ("failed to resolve", "transient"),
    ("name resolution", "transient"),
    ("network is unreachable", "transient"),
    ("no route to host", "transient"),
    ("eof occurred", "transient"),
    ("bytes read,", "transient"),
    ("bytes missing", "transient"),
    ("content too short", "transient"),
    ("giving up after", "transient"),
    ("video unavailable", "removed"),
    ("video is unavailable", "removed"),
    ("video is not available", "removed"),
)

_AGAIN = {
    "bot-check": STOP,
    "rate-limited": STOP,
    "transient": LATER,
    "timeout": LATER,
    "truncated": LATER,
    "crashed": LATER,
}
#: Seconds to stay away when the site names none.
STAY_AWAY_S = {"rate-limited": 3600.0, "bot-check": 24 * 3600.0}

#: What to tell the person at the keyboard when an outcome occurs.
HINTS = {
    "bot-check": "Wait, then go on with --cookies FILE of a signed-in browser session; repeated tries make it worse. "
    "An account used for bulk fetching can be banned.",
    "rate-limited": "The site asks for fewer requests: go on later, with a longer --pause.",
    "age-gated": "Needs --cookies FILE of a signed-in adult account; an account used for bulk fetching can be banned.",
    "geo-blocked": "Not shown in this country; nothing here works around that.",
    "transient": "Run the same command again.  Many `HTTP Error 403` often mean that yt-dlp is too old.",
    "format": "No combined or separate streams up to --max-height; try a larger one.",
    "absent": "Nothing by the clip's or the video's id there; check --from, or --offsets where starts are not known.",
    "wrong-length": "The file is neither the clip nor can it be cut: give --offsets, or --holds clips|videos.",
}


class Refusal(Exception):
    """A video could not be had.

    Args:
        outcome: of `pipeline.outcomes`.
        message: raw words of the site or tool.
        retry_after_s: how long the site asks to stay away.
        again: `stop`, `later` or `never`; derived from the outcome if not given.
    """

    def __init__(
        self, outcome: str, message: str, retry_after_s: float | None = None, again: str | None = None
    ) -> None:
        self.outcome, self.message, self.retry_after_s = outcome, message, retry_after_s
        self.again = again or _AGAIN.get(outcome, NEVER)
        super().__init__(f"{outcome}: {message}")


def classify(message: str, retry_after_s: float | None = None) -> Refusal:
    """The refusal that a message of yt-dlp means.

    A message that no fragment knows is `unavailable`, and may be tried again: sites change their words.
    """
    plain = message.replace("\u2019", "'").lower()
    for fragment, outcome in FRAGMENTS:
        if fragment in plain:
            return Refusal(outcome, message, retry_after_s)
    return Refusal("unavailable", message, retry_after_s, again=LATER)


def from_status(status: int, reason: str, retry_after_s: float | None = None) -> Refusal:
    """The refusal that an HTTP status means."""
    message = f"HTTP Error {status}: {reason}"
    if status in (408, 425, 429, 403, 404, 410) or status >= 500:
        outcome = {429: "rate-limited", 404: "absent", 410: "removed"}.get(status, "transient")
        return Refusal(outcome, message, retry_after_s)
    return Refusal("unavailable", message, retry_after_s)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait of a `Retry-After` header, which is a number of seconds or a date; None if there is none.

    Args:
        now_s: seconds since 1970, to turn a date into a wait.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(value).timestamp() - now_s, 0.0)
    except (TypeError, ValueError):
        return None


def redact(text: str) -> str:
    """The text without user names and passwords in its URLs, and on lines that can be printed."""
    text = re.sub(r"([a-z][a-z0-9+.-]*://)[^/\s@]+@", r"\1", text, flags=re.IGNORECASE)
    return re.sub(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f]", "", text)[:2000]
