"""Everything that the result of a training depends on, as JSON values: it decides what resumes and what compares."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from pipeline.manifest import Manifest
from pipeline.recipes import TrainingRecipe
from pipeline.run import sha256_of
from pipeline.store import FeatureStore


def facts(
    arguments: argparse.Namespace, manifest: Manifest, recipe: TrainingRecipe, seed: int, store: FeatureStore,
    chosen: Any, cls: type, pseudo: Any, labelled: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Of a training with these flags.

    Args:
        chosen: the clips that are used.
        cls: class of the network.
        pseudo: its pseudo-labels, or None.
        labelled: splits in which it reads them.
    """
    return {
        "model": recipe.model,
        "setting": recipe.setting,
        "task": cls.task,
        "gate_is": cls.gate_is,
        "seed": seed,
        "dataset": manifest.dataset,
        "manifest": manifest.digest,
        "annotations": manifest.facts.get("annotations", {}),
        "features": {
            stream: {"key": key, "name": store.spec(key).name, "weights": store.spec(key).weights}
            for stream, key in chosen.keys.items()
        },
        "labels": pseudo.keys if pseudo is not None else None,
        "background": str(arguments.background.name) if arguments.background else None,
        "precision": arguments.precision,
        "recipe": recipe.to_dict(),
        "coverage": chosen.coverage(),
        "content": _content(arguments, manifest, store, chosen, pseudo, labelled),
    }


def _content(
    arguments: argparse.Namespace, manifest: Manifest, store: FeatureStore, chosen: Any, pseudo: Any,
    labelled: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Hashes of the rows that are used: features and labels made again under the same key are others."""
    from pipeline.content import rows_digest
    from pipeline.targets import BACKGROUND_FILES

    def used(splits: Iterable[str]) -> list[str]:
        return [manifest.ids[row] for split in splits for row in chosen.rows[split]]

    found: dict[str, Any] = {
        "features": {stream: rows_digest(store, key, used(chosen.rows)) for stream, key in chosen.keys.items()}
    }
    if pseudo is not None:
        found["labels"] = {name: rows_digest(pseudo.store, key, used(labelled)) for name, key in pseudo.keys.items()}
    if arguments.background:
        found["background"] = {name: sha256_of(arguments.background / name) for name in BACKGROUND_FILES.values()}
    return found
