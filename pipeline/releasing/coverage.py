"""What share of a dataset has features, by split, by class and by reason of absence; and under which licences."""

from __future__ import annotations

from collections import Counter
from typing import Any

from extractors.spec import FeatureSpec
from pipeline.manifest import Manifest
from pipeline.store import FeatureStore

UNKNOWN = "unknown"


def coverage(manifest: Manifest, store: FeatureStore) -> dict[str, Any]:
    """Per key: clips with rows and clips asked for, by split and by class, and every other outcome counted."""
    found = {}
    for key in store:
        outcomes = store.outcomes(key)
        splits: dict[str, Counter] = {}
        classes: dict[str, Counter] = {}
        for clip in manifest.clips:
            ok = outcomes[clip.id] == "ok"
            for table, names in ((splits, [clip.split or "(none)"]), (classes, sorted(set(clip.labels)))):
                for name in names:
                    table.setdefault(name, Counter()).update(clips=1, ok=int(ok))
        found[key] = {
            "name": store.spec(key).name,
            "outcomes": dict(sorted(Counter(outcomes.values()).items())),
            "splits": {name: dict(splits[name]) for name in splits},
            "classes": {name: dict(classes[name]) for name in manifest.classes if name in classes},
        }
    return found


def licences(manifest: Manifest, specs: dict[str, FeatureSpec]) -> dict[str, Any]:
    """Licences of this code, of each encoder's code and weights, of annotations and media; `unknown` if not stated."""
    stated = manifest.facts.get("licence") or {}
    if isinstance(stated, str):
        stated = {"annotations": stated}
    return {
        "this code": "Apache-2.0",
        "annotations": stated.get("annotations") or UNKNOWN,
        "media": stated.get("media") or UNKNOWN,
        "features": {key: _of_encoder(spec) for key, spec in specs.items()},
    }


def _of_encoder(spec: FeatureSpec) -> dict[str, str]:
    """Of the checkpoint that the recipe names; random weights and weights of the user's own have no known licence.

    Where the publisher states no hash, nothing tells its file from another.
    """
    from extractors.recipes import recipe

    try:
        record = recipe(spec.name).weights
    except (ValueError, ImportError):
        record = None
    if record is None:
        return {"code": UNKNOWN, "weights": UNKNOWN, "weights_page": UNKNOWN}
    stated = {"code": record.licence_code, "weights": record.licence_weights, "weights_page": record.page}
    if not record.sha256 and not spec.random_weights:
        return stated | {"weights": f"{record.licence_weights} if they are the publisher's, who states no hash"}
    if spec.random_weights or not spec.weights.removeprefix("sha256:").startswith(record.sha256[:8].lower()):
        return stated | {"weights": UNKNOWN, "weights_page": UNKNOWN}
    return stated
