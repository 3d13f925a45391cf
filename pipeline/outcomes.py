"""The closed list of ways in which a clip can end.  Every clip asked for has exactly one, at every stage.

The position in `OUTCOMES` is the code stored in feature stores: append, never reorder.
"""

from __future__ import annotations

OUTCOMES: tuple[str, ...] = (
    "pending",  # no job has handled it yet
    "ok",
    "absent",  # no media file for the clip
    "removed",
    "private",
    "copyright",
    "geo-blocked",
    "age-gated",
    "bot-check",
    "rate-limited",
    "format",
    "transient",  # network trouble that outlasted the retries
    "unavailable",  # live, premiere, members-only and other refusals
    "truncated",
    "no-audio",
    "no-video",
    "too-short",
    "not-media",
    "decode-error",
    "timeout",
    "crashed",  # the decoding process died on it
    "non-finite",  # the encoder gave NaN or infinity
    "wrong-length",  # the file is neither the clip nor known to contain it
    "too-large",  # the download exceeded the size limit
)
CODES: dict[str, int] = {name: code for code, name in enumerate(OUTCOMES)}

#: One plain sentence for each, for reports and messages.
MEANING: dict[str, str] = {
    "pending": "no job has handled it yet",
    "ok": "rows were written",
    "absent": "no media file was found for the clip",
    "removed": "the site says the video was removed",
    "private": "the video is private",
    "copyright": "blocked on copyright grounds",
    "geo-blocked": "not available in this country",
    "age-gated": "the site wants a signed-in adult",
    "bot-check": "the site asked to prove that we are no robot; the run stopped",
    "rate-limited": "the site asked us to slow down; the run stopped",
    "format": "no suitable format is offered",
    "transient": "network trouble outlasted the retries; try again",
    "unavailable": "live, premiere, members only or refused otherwise",
    "truncated": "the file ends before its own header says",
    "no-audio": "the file has no audio stream",
    "no-video": "the file has no video stream",
    "too-short": "the media ends before the grid does (and --tail drop was given)",
    "not-media": "the file is empty or no media file",
    "decode-error": "the decoder failed",
    "timeout": "decoding or downloading took longer than allowed",
    "crashed": "the decoding process died on this clip",
    "non-finite": "the encoder produced NaN or infinity",
    "wrong-length": "the file is longer than the annotation says, and where the clip lies in it is not known",
    "too-large": "the download exceeded the size limit",
}
