"""What became of every clip of a manifest, by split, class and reason; the counts add up to the manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from pipeline.acquisition.ledger import Attempt, Ledger
from pipeline.acquisition.refusals import HINTS
from pipeline.acquisition.shelf import Shelf
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING, OUTCOMES


def outcomes(manifest: Manifest, ledger: Ledger, shelf: Shelf) -> dict[str, str]:
    """Exactly one outcome per clip id, in manifest order: `ok` only if the file is there, `pending` if never tried."""
    found = {}
    for clip in manifest.clips:
        final = ledger.final(clip.id)
        if final is None:
            found[clip.id] = "pending"
        elif final.outcome == "ok" and not _is_there(final, shelf):
            found[clip.id] = "absent"
        else:
            found[clip.id] = final.outcome
    return found


def counts(manifest: Manifest, found: dict[str, str]) -> dict[str, Any]:
    """Counts by outcome; by split and outcome; by class (weak labels) and outcome; JSON values in a fixed order."""
    by_split: dict[str, Counter] = defaultdict(Counter)
    by_class: dict[str, Counter] = {name: Counter() for name in manifest.classes}
    for clip in manifest.clips:
        outcome = found[clip.id]
        by_split[clip.split][outcome] += 1
        for label in clip.labels:
            by_class[label][outcome] += 1
    return {
        "clips": len(manifest),
        "outcomes": _ordered(Counter(found.values())),
        "splits": {name: _ordered(count) for name, count in by_split.items()},
        "classes": {name: _ordered(count) for name, count in by_class.items()},
    }


def describe(manifest: Manifest, found: dict[str, str], ledger: Ledger, classes: int = 10) -> str:
    """The summary as lines for a person.

    Args:
        classes: how many classes to list, those that lost the largest share first.
    """
    table = counts(manifest, found)
    here = table["outcomes"].get("ok", 0)
    lines = [f"dataset     {manifest.dataset}: {here} of {len(manifest)} clips are here"]
    for outcome, count in table["outcomes"].items():
        lines.append(f"  {count:>7}  {outcome:<14} {_meaning(outcome)}")
        example = next((ledger.final(clip) for clip, is_so in found.items() if is_so == outcome), None)
        if outcome != "ok" and example is not None and example.message:
            lines.append(f"           e.g. {example.clip}: {' '.join(example.message.split())[:160]}")
        if hint := HINTS.get(outcome):
            lines.append(f"           {hint}")
    if set(table["splits"]) != {""}:
        for name, count in table["splits"].items():
            lines.append(f"split       {name or '(none)':<10} {_line(count)}")
    lost = {name: count for name, count in table["classes"].items() if sum(count.values()) > count.get("ok", 0)}
    order = sorted(lost, key=lambda name: (lost[name].get("ok", 0) / sum(lost[name].values()), name))
    for name in order[:classes]:
        lines.append(f"class       {name:<30} {_line(lost[name])}")
    if len(order) > classes:
        lines.append(f"            and {len(order) - classes} more classes that lost clips; all are in the receipt")
    if ledger.torn:
        lines.append(f"note        {ledger.torn} line(s) of the ledger are torn or unknown and were skipped")
    return "\n".join(lines)


def _is_there(attempt: Attempt, shelf: Shelf) -> bool:
    path = shelf.folder / attempt.media["file"]
    return path.is_file() and path.stat().st_size == attempt.media["bytes"]


_OWN_MEANING = {
    "ok": "the clip's file is here and verified",
    "too-short": "the file, or the video, ends before the clip does",
}


def _meaning(outcome: str) -> str:
    return _OWN_MEANING.get(outcome, MEANING[outcome])


def _line(count: dict[str, int]) -> str:
    total = sum(count.values())
    rest = ", ".join(f"{name} {number}" for name, number in count.items() if name != "ok")
    return f"{count.get('ok', 0)} of {total}" + (f": {rest}" if rest else "")


def _ordered(count: Counter) -> dict[str, int]:
    return {name: count[name] for name in ("ok", *(n for n in OUTCOMES if n != "ok")) if count[name]}
