"""Messages, statuses and headers become outcomes of the closed list."""

import pytest

from pipeline.acquisition.refusals import (
    FRAGMENTS,
    HINTS,
    LATER,
    NEVER,
    STAY_AWAY_S,
    STOP,
    classify,
    from_status,
    parse_retry_after,
    redact,
)
from pipeline.outcomes import CODES

# As YouTube and yt-dlp word them; one row of the table in the data set notes each, at least.
MESSAGES = [
    ("ERROR: [youtube] abc: Private video. Sign in if you've been granted access to this video", "private", NEVER),
    ("This video is private", "private", NEVER),
    ("Video unavailable. This video has been removed by the uploader", "removed", NEVER),
    ("Video unavailable", "removed", NEVER),
    (
        "Video unavailable. This video is no longer available because the YouTube account associated with this video "
        "has been terminated.",
        "removed",
        NEVER,
    ),
    ("This video is no longer available because the account was terminated", "removed", NEVER),
    ("This video has been removed for violating YouTube's Terms of Service", "copyright", NEVER),
    ("Video unavailable. This video is no longer available due to a copyright claim by X", "copyright", NEVER),
    (
        "Video unavailable. This video is from X, who has blocked it in your country on copyright grounds",
        "copyright",
        NEVER,
    ),
    ("The uploader has not made this video available in your country", "geo-blocked", NEVER),
    ("Sign in to confirm your age. This video may be inappropriate for some users.", "age-gated", NEVER),
    ("Sign in to confirm you're not a bot. Use --cookies for the authentication", "bot-check", STOP),
    ("Sign in to confirm you\u2019re not a bot. Use --cookies for the authentication", "bot-check", STOP),
    ("unable to download video data: HTTP Error 429: Too Many Requests", "rate-limited", STOP),
    ("unable to download video data: HTTP Error 403: Forbidden", "transient", LATER),
    ("The read operation timed out", "transient", LATER),
    ("[Errno 104] Connection reset by peer", "transient", LATER),
    ("Unable to download webpage: Failed to resolve 'www.youtube.com'", "transient", LATER),
    ("Requested format is not available. Use --list-formats", "format", NEVER),
    ("This live event will begin in 3 hours.", "unavailable", NEVER),
    ("Premieres in 20 minutes", "unavailable", NEVER),
    ("Join this channel to get access to members-only content like this video", "unavailable", NEVER),
    ("Something that nobody has seen before", "unavailable", LATER),
]


@pytest.mark.parametrize(("message", "outcome", "again"), MESSAGES)
def test_every_message_has_its_outcome(message, outcome, again):
    refusal = classify(message)
    assert (refusal.outcome, refusal.again, refusal.message) == (outcome, again, message)


def test_the_tables_use_the_closed_list_only():
    assert {outcome for _, outcome in FRAGMENTS} | set(HINTS) | set(STAY_AWAY_S) <= set(CODES)
    assert all(fragment == fragment.lower() and "\u2019" not in fragment for fragment, _ in FRAGMENTS)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (403, "transient"),
        (404, "absent"),
        (410, "removed"),
        (429, "rate-limited"),
        (503, "transient"),
        (451, "unavailable"),
    ],
)
def test_statuses(status, outcome):
    assert from_status(status, "because").outcome == outcome


def test_retry_after_is_seconds_or_a_date():
    assert parse_retry_after("120", 0.0) == 120.0
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:40 GMT", 40.0) == 60.0
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:40 GMT", 400.0) == 0.0
    assert parse_retry_after("soon", 0.0) is None
    assert parse_retry_after(None, 0.0) is None


def test_redact_removes_passwords_and_control_characters():
    assert redact("at https://me:secret@example.org/x\x1b[0m\x07") == "at https://example.org/x"
