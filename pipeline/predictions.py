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
#: What scoring needs to know, and the arrays that decide, by task.
_FACTS = (
    "model", "setting", "task", "gate_is", "seed", "dataset", "manifest", "features", "labels", "coverage", "recipe",
    "best",
)  # fmt: skip
_ARRAYS = {"ave": ({"scores"}, {"gate", "category"}), "avvp": ({"video", "audio", "visual"},)}
_AGAIN = "the same `python -m pipeline.train` command writes it again from its checkpoint"


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
            ValueError: not a file of predictions, damaged, or something is missing in it.
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
                made = cls(file["clip"], file["split"], arrays, facts)
        except Exception as error:  # a damaged archive raises many kinds, from zipfile, zlib and NumPy
            raise ValueError(f"{path}: not a file of predictions ({error}); {_AGAIN}") from error
        if problems := made.problems():
            raise ValueError(f"{path}: incomplete or damaged: {'; '.join(problems)}; {_AGAIN}")
        return made

    def problems(self) -> list[str]:
        """What is missing or does not fit together, one phrase each."""
        facts = self.facts if isinstance(self.facts, dict) else {}
        found = [f"no fact {name}" for name in _FACTS if name not in facts]
        count = len(self.clips) if self.clips.ndim == 1 else -1
        if count < 1 or self.splits.shape != (count,):
            found.append(f"clips of shape {self.clips.shape} and splits of shape {self.splits.shape}")
        if not self.arrays:
            found.append("no predictions")
        for selection, arrays in self.arrays.items():
            if not any(names <= set(arrays) for names in _ARRAYS.get(facts.get("task"), ())):
                found.append(f"{selection} has {', '.join(sorted(arrays))} only")
            found += [
                f"{selection} {name} is of shape {values.shape} for {count} clips"
                for name, values in arrays.items()
                if values.ndim < 2 or len(values) != count
            ]
        return found

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
