"""The hygiene report: what the acquired clips are made of, and which of them deserve a look.

Nothing here fails a clip; a still picture with music is a clip of its data set all the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.acquisition.ledger import Attempt

SILENT_LUFS = -70.0
QUIET_LUFS = -45.0
CLIPPED_DB = -0.05
STILL_SHARE = 0.98
BLACK_SHARE = 0.9
LOW_FPS = 10.0


def hygiene(attempts: Iterable[Attempt]) -> dict[str, Any]:
    """Distributions, conspicuous clips and exact duplicates of clips that are here.

    Returns:
        JSON values: `clips`; per quantity `min`, `median`, `max`; counts per codec and resolution; per finding the ids
        of the clips; `duplicates`: groups of ids whose files are equal byte for byte.
    """
    attempts = list(attempts)
    facts = {attempt.clip: attempt.media["facts"] for attempt in attempts}
    report: dict[str, Any] = {"clips": len(facts)}
    for name in ("duration_s", "fps", "loudness_lufs", "peak_db", "audio_rate_hz"):
        report[name] = _spread([values[name] for values in facts.values() if values[name]])
    report["resolution"] = _counts(f"{values['width']}x{values['height']}" for values in facts.values())
    report["video_codec"] = _counts(values["video_codec"] or "none" for values in facts.values())
    report["audio_codec"] = _counts(values["audio_codec"] or "none" for values in facts.values())
    report["audio_channels"] = _counts(str(values["audio_channels"]) for values in facts.values())
    report["made"] = _counts(attempt.media["made"] for attempt in attempts)
    report["findings"] = {
        name: [clip for clip, values in facts.items() if matches(values)] for name, matches in _FINDINGS.items()
    }
    report["duplicates"] = duplicates(attempts)
    return report


def duplicates(attempts: Iterable[Attempt]) -> list[list[str]]:
    """Ids of clips with the same bytes in different files; an uncut video shared by its clips is no duplicate."""
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for attempt in attempts:
        files[attempt.media["sha256"]].setdefault(attempt.media["file"], attempt.clip)
    return sorted(sorted(group.values()) for group in files.values() if len(group) > 1)


def describe(report: dict[str, Any]) -> str:
    """The report as lines for a person."""
    if not report["clips"]:
        return "hygiene     no clip to look at"
    lines = [f"hygiene     {report['clips']} clip(s)"]
    for name, unit in (("duration_s", "s"), ("fps", "frames/s"), ("loudness_lufs", "LUFS")):
        if spread := report[name]:
            lines.append(
                f"            {name}: {spread['min']:.2f} to {spread['max']:.2f} {unit}, median {spread['median']:.2f}"
            )
    for name in ("resolution", "video_codec", "audio_codec"):
        lines.append(
            f"            {name}: " + ", ".join(f"{key} {count}" for key, count in list(report[name].items())[:6])
        )
    for name, ids in report["findings"].items():
        if ids:
            lines.append(f"            {name}: {len(ids)} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})")
    if groups := report["duplicates"]:
        lines.append(f"            equal byte for byte: {len(groups)} group(s), e.g. {' = '.join(groups[0][:4])}")
    return "\n".join(lines)


_FINDINGS = {
    "silent": lambda v: v["loudness_lufs"] is not None and v["loudness_lufs"] <= SILENT_LUFS,
    "quiet": lambda v: v["loudness_lufs"] is not None and SILENT_LUFS < v["loudness_lufs"] <= QUIET_LUFS,
    "clipped": lambda v: v["peak_db"] is not None and v["peak_db"] >= CLIPPED_DB,
    "still image": lambda v: v["still_share"] is not None and v["still_share"] >= STILL_SHARE,
    "black": lambda v: v["black_share"] is not None and v["black_share"] >= BLACK_SHARE,
    "low frame rate": lambda v: v["frames"] > 0 and v["fps"] < LOW_FPS,
    "without audio": lambda v: v["audio_s"] == 0,
    "without video": lambda v: v["frames"] == 0,
}


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": float(min(values)), "median": round(float(np.median(values)), 3), "max": float(max(values))}


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda entry: (-entry[1], entry[0])))
