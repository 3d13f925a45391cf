"""What changed between two releases, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.comparison import changed_fields, distance
from pipeline.manifest import Manifest
from pipeline.releasing.contents import RECORD, read_sums
from pipeline.store import FeatureStore


def load_record(folder: Path) -> dict[str, Any]:
    """`release.json` of a release.

    Raises:
        StoreError: no release there.
    """
    read_sums(folder)
    return json.loads((folder / RECORD).read_text())


def differences(folder_a: Path, folder_b: Path) -> Iterator[str]:
    """One line per change: clips, features with the fields that made them other keys, values, licences, versions."""
    one, two = load_record(folder_a), load_record(folder_b)
    if one["id"] == two["id"]:
        return
    yield f"id: {one['id']} -> {two['id']}"
    yield from _clips(Manifest.load(folder_a / "manifest.parquet"), Manifest.load(folder_b / "manifest.parquet"))
    yield from _features(folder_a, folder_b, one["specs"], two["specs"])
    for part in ("licences", "made_with"):
        yield from (f"{part}.{line}" for line in changed_fields(one[part], two[part]))
    sums_a, sums_b = read_sums(folder_a), read_sums(folder_b)
    for name in sorted({*sums_a, *sums_b}):
        if name.split("/")[0] in ("ledger", "labels", "receipts") and sums_a.get(name) != sums_b.get(name):
            state = "added" if name not in sums_a else "removed" if name not in sums_b else "changed"
            yield f"{name}: {state}"


def _clips(one: Manifest, two: Manifest) -> Iterator[str]:
    if one.digest == two.digest:
        return
    yield f"manifest: {one.digest[:12]} -> {two.digest[:12]}"
    clips_a, clips_b = ({clip.id: clip for clip in made.clips} for made in (one, two))
    for what, ids in (("added", clips_b.keys() - clips_a.keys()), ("removed", clips_a.keys() - clips_b.keys())):
        if ids:
            yield f"clips {what}: {len(ids)} ({_some(sorted(ids))})"
    changed = [clip_id for clip_id, clip in clips_a.items() if clip_id in clips_b and clips_b[clip_id] != clip]
    if changed:
        fields = changed_fields(clips_a[changed[0]].to_dict(), clips_b[changed[0]].to_dict())
        yield f"clips changed: {len(changed)} ({_some(changed)}); first, {changed[0]}: {'; '.join(fields)}"
    if one.classes != two.classes:
        yield f"classes: {len(one.classes)} -> {len(two.classes)}"


def _features(folder_a: Path, folder_b: Path, one: dict[str, Any], two: dict[str, Any]) -> Iterator[str]:
    store_a, store_b = FeatureStore.open(folder_a / "store"), FeatureStore.open(folder_b / "store")
    gone, new = [key for key in one if key not in two], [key for key in two if key not in one]
    for key in list(gone):
        others = [other for other in new if (two[other]["encoder"], two[other]["recipe"]) == _name(one[key])]
        if len(others) == 1:
            gone.remove(key)
            new.remove(others[0])
            yield f"feature {key} -> {others[0]}, because"
            yield from (f"    {line}" for line in changed_fields(one[key], two[others[0]]))
    yield from (f"feature removed: {key}" for key in gone)
    yield from (f"feature added: {key}" for key in new)
    for key in (key for key in one if key in two):
        yield from _values(store_a, store_b, key)


def _values(store_a: FeatureStore, store_b: FeatureStore, key: str) -> Iterator[str]:
    """Rows under the same key: equal blocks are known by their hashes and not read."""
    records = [{block: store.commit(key, block) for block, _ in store.blocks(key)} for store in (store_a, store_b)]
    if [r and r["files"] for r in records[0].values()] == [r and r["files"] for r in records[1].values()]:
        return
    outcomes_a, outcomes_b = store_a.outcomes(key), store_b.outcomes(key)
    moved = [clip_id for clip_id in outcomes_a if outcomes_b.get(clip_id, outcomes_a[clip_id]) != outcomes_a[clip_id]]
    if moved:
        first = moved[0]
        yield f"{key}: outcome of {len(moved)} clips; first, {first}: {outcomes_a[first]} -> {outcomes_b[first]}"
    found = distance(store_a, key, store_b, key)
    if not found.identical:
        yield (
            f"{key}: values differ under the same key (largest {found.largest:.3g}, "
            f"row cosine p5 {found.cosine_p5:.6f}): same recipe and weights, so media, machine or packages changed"
        )


def _name(spec: dict[str, Any]) -> tuple[str, str]:
    return spec["encoder"], spec["recipe"]


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
