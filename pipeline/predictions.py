"""What a trained network said about every clip of the evaluation splits, and the scores that follow from it.

One `.npz` per training: arrays over clips, for each of the two selections that the literature uses.  Scores can be
recomputed from it at any time, without the network.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.metrics import ave, avvp

#: How the epoch is chosen: honestly, or as most papers do, by the very score that they report.
SELECTIONS = ("best-validation", "best-test")


@dataclass(frozen=True)
class Predictions:
    """Predictions of one training.

    Args:
        clips: (n,) ids.
        splits: (n,) split of each.
        arrays: selection -> name -> (n, ...) as `Model.predictions` gives them.
        facts: model, setting, seed, feature keys, task, gate_is, manifest digest, epochs chosen, coverage; JSON values.
    """

    clips: np.ndarray
    splits: np.ndarray
    arrays: dict[str, dict[str, np.ndarray]]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write `.npz`, atomically."""
        flat = {f"{selection}/{name}": a for selection, arrays in self.arrays.items() for name, a in arrays.items()}
        partial = path.with_name(path.name + f".{os.getpid()}.partial")
        with open(partial, "wb") as file:
            np.savez_compressed(
                file, clip=self.clips, split=self.splits, facts=np.array(json.dumps(self.facts, sort_keys=True)), **flat
            )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            ValueError: not a file of predictions.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; `python -m pipeline.train` writes predictions.npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                arrays: dict[str, dict[str, np.ndarray]] = {}
                for entry in file.files:
                    selection, separator, name = entry.partition("/")
                    if separator:
                        arrays.setdefault(selection, {})[name] = file[entry]
                return cls(file["clip"], file["split"], arrays, facts)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not a file of predictions ({error})") from error

    def of(self, selection: str, split: str) -> dict[str, np.ndarray]:
        """Arrays of one split."""
        inside = self.splits == split
        return {name: values[inside] for name, values in self.arrays[selection].items()}


def decide(task: str, arrays: dict[str, np.ndarray], classes: int, gate_is: str = "logits") -> dict[str, np.ndarray]:
    """Decisions from raw outputs: `classes` (n, T) for AVE; grids `audio` and `visual` (n, T, C) for AVVP."""
    if task == "ave":
        if "scores" in arrays:
            return {"classes": ave.per_segment(arrays["scores"])}
        return {"classes": ave.gated(arrays["gate"], arrays["category"], classes, gate_is)}
    return {name: avvp.decide(arrays["video"], arrays[name]) for name in ("audio", "visual")}


def measure(
    task: str, arrays: dict[str, np.ndarray], truth: dict[str, np.ndarray], gate_is: str = "logits"
) -> dict[str, Any]:
    """Scores of one split.

    Args:
        arrays: raw outputs.
        truth: as `pipeline.targets` makes them, for the same clips in the same order.
    Returns:
        AVE: `accuracy`.  AVVP: `segment` and `event` tables.  Both: `main`, by which epochs are selected.
    """
    if task == "ave":
        labels = truth["labels"]
        value = ave.accuracy(decide(task, arrays, labels.shape[2] - 1, gate_is)["classes"], labels)
        return {"main": value, "accuracy": value}
    found = decide(task, arrays, truth["video_labels"].shape[1])
    table = avvp.scores(found["audio"], found["visual"], truth["audio_labels"], truth["visual_labels"])
    return {"main": table["segment"]["Type"], **table}


def references(task: str, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores that need no feature, on the same clips."""
    if task == "ave":
        return ave.label_only(truth["labels"])
    return avvp.label_only(truth["video_labels"], truth["audio_labels"], truth["visual_labels"])
