"""Which clips have rows, by split, and why the others have none.

Counts come from arrays, so a store of 10^5 clips costs a few array reads; per-clip text is shown for a capped number.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.outcomes import CODES, MEANING, OUTCOMES
from pipeline.reporting.gather import Run, json_lines

#: Failures shown with their text, per feature key and outcome; the rest is counted.
SHOWN_FAILURES = 40

#: Which of the four colours of a bar an outcome has; the rest is media that is there and gives no rows.
_NOT_OBTAINED = {
    "absent", "removed", "private", "copyright", "geo-blocked", "age-gated", "bot-check", "rate-limited", "format",
    "transient", "unavailable", "too-large",
}  # fmt: skip
GROUP_MEANING = {
    "rows": "rows were written",
    "not obtained": "no media file",
    "unusable": "media is there and gives no rows",
    "pending": "not handled yet",
}


def group(outcome: str) -> str:
    """Which of `GROUP_MEANING` an outcome belongs to."""
    if outcome in _NOT_OBTAINED:
        return "not obtained"
    return {"ok": "rows", "pending": "pending"}.get(outcome, "unusable")


@dataclass(frozen=True)
class Bar:
    """One split: how many clips ended in each outcome."""

    split: str
    outcomes: dict[str, int]

    @property
    def clips(self) -> int:
        return sum(self.outcomes.values())

    @property
    def ok(self) -> int:
        return self.outcomes.get("ok", 0)

    @property
    def parts(self) -> list[tuple[str, int, float]]:
        """(group, clips, per cent) of the non-empty groups, in the order of `GROUP_MEANING`."""
        counts = dict.fromkeys(GROUP_MEANING, 0)
        for outcome, count in self.outcomes.items():
            counts[group(outcome)] += count
        return [(name, count, 100.0 * count / self.clips) for name, count in counts.items() if count]


@dataclass(frozen=True)
class Failures:
    """Clips that ended in one outcome: how many, and the first of them with their text."""

    outcome: str
    count: int
    shown: tuple[tuple[str, str], ...]

    @property
    def meaning(self) -> str:
        return MEANING.get(self.outcome, "an outcome that this version does not know")


@dataclass(frozen=True)
class Coverage:
    """Coverage of one feature key, or of the media that `acquire` fetched."""

    title: str
    bars: tuple[Bar, ...]
    failures: tuple[Failures, ...]

    @property
    def total(self) -> Bar:
        added: Counter[str] = Counter()
        for bar in self.bars:
            added.update(bar.outcomes)
        return Bar("all", dict(added))

    @property
    def lines(self) -> list[Bar]:
        """Lines of the table: the splits, and their sum where there are several."""
        return [*self.bars, self.total] if len(self.bars) > 1 else list(self.bars)

    @property
    def outcomes(self) -> list[str]:
        """Outcomes that occur, `ok` first, then by number of clips."""
        counts = self.total.outcomes
        return sorted(counts, key=lambda name: (name != "ok", -counts[name], name))


def coverages(run: Run) -> list[Coverage]:
    """One per source: the ledger of `acquire`, then each feature key."""
    splits = {clip.id: clip.split for clip in run.manifest.clips} if run.manifest is not None else {}
    found = []
    if (run.path / "ledger.jsonl").exists():
        found.append(_of_ledger(run, splits))
    for key in run.keys:
        made = run.attempt(f"features/{key}", _of_key, run, key, splits)
        if made is not None:
            found.append(made)
    return found


def _of_key(run: Run, key: str, splits: dict[str, str]) -> Coverage:
    codes = np.asarray(run.store.array(key, "outcome")[:])
    ids = [str(clip_id) for clip_id in run.store.array(key, "clip")[:]]
    if codes.size and int(codes.max()) >= len(OUTCOMES):
        raise ValueError(f"outcome code {int(codes.max())} is unknown; this version knows 0..{len(OUTCOMES) - 1}")
    # What no commit record vouches for does not count, whatever the array holds.
    for span in run.store.missing(key):
        codes[span.start : span.stop] = CODES["pending"]
    names = list(dict.fromkeys(splits.values())) if splits else []
    unlisted = "(not in the manifest)" if splits else "(no manifest)"
    order = [*names, unlisted]
    number = {name: index for index, name in enumerate(order)}
    rows = np.array([number[splits.get(clip_id, unlisted)] for clip_id in ids], dtype=np.int64)
    counts = np.bincount(rows * len(OUTCOMES) + codes, minlength=len(order) * len(OUTCOMES)).reshape(len(order), -1)
    bars = tuple(
        Bar(name or "(no split)", {OUTCOMES[code]: int(count) for code, count in enumerate(line) if count})
        for name, line in zip(order, counts, strict=True)
        if line.any()
    )
    return Coverage(key, bars, _failures_of_key(run, key, ids, codes))


def _failures_of_key(run: Run, key: str, ids: list[str], codes: np.ndarray) -> tuple[Failures, ...]:
    chosen: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for code in np.unique(codes):
        outcome = OUTCOMES[int(code)]
        if outcome in ("ok", "pending"):
            continue
        rows = np.flatnonzero(codes == code)
        counts[outcome] = len(rows)
        chosen[outcome] = [ids[row] for row in rows[:SHOWN_FAILURES]]
    wanted = {clip_id for clips in chosen.values() for clip_id in clips}
    reasons = _reasons(run, key, wanted)
    return tuple(
        Failures(
            outcome,
            counts[outcome],
            tuple((clip_id, reasons.get(clip_id, MEANING[outcome])) for clip_id in chosen[outcome]),
        )
        for outcome in sorted(counts, key=lambda name: (-counts[name], name))
    )


def _reasons(run: Run, key: str, wanted: set[str]) -> dict[str, str]:
    """Text of the wanted clips, from the commit records read one at a time."""
    found: dict[str, str] = {}
    for path in sorted((run.store.path / "commits" / key).glob("*.json")):
        if len(found) == len(wanted):
            break
        record = run.attempt(f"features/commits/{key}/{path.name}", lambda path=path: json.loads(path.read_text()))
        reasons = record.get("reasons") if isinstance(record, dict) else None
        for clip_id in wanted & reasons.keys() if isinstance(reasons, dict) else ():
            found[clip_id] = str(reasons[clip_id])
    return found


def _of_ledger(run: Run, splits: dict[str, str]) -> Coverage:
    """The last entry of every clip counts: a ledger only grows."""
    last: dict[str, tuple[str, str]] = {}
    for entry in json_lines(run, run.path / "ledger.jsonl"):
        clip_id, outcome = entry.get("clip"), entry.get("outcome")
        ours = run.manifest is None or entry.get("dataset", run.manifest.dataset) == run.manifest.dataset
        if ours and isinstance(clip_id, str) and isinstance(outcome, str):
            last[clip_id] = (outcome, str(entry.get("message") or ""))
    counts: dict[str, Counter[str]] = {}
    failures: dict[str, list[tuple[str, str]]] = {}
    for clip_id in splits or last:
        outcome, reason = last.get(clip_id, ("pending", ""))
        split = splits.get(clip_id, "(no manifest)") or "(no split)"
        counts.setdefault(split, Counter())[outcome] += 1
        if outcome not in ("ok", "pending"):
            shown = failures.setdefault(outcome, [])
            if len(shown) < SHOWN_FAILURES:
                shown.append((clip_id, reason or MEANING.get(outcome, "")))
    total: Counter[str] = sum(counts.values(), Counter())
    return Coverage(
        "media, by the ledger of acquire",
        tuple(Bar(split, dict(tally)) for split, tally in counts.items()),
        tuple(
            Failures(outcome, total[outcome], tuple(failures[outcome]))
            for outcome in sorted(failures, key=lambda name: (-total[name], name))
        ),
    )
