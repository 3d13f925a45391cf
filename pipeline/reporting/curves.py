"""Learning curves of training and fine-tuning: `curves.json`, a list of epochs, or `curves.jsonl`, a line each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.reporting import figures
from pipeline.reporting.gather import Run, json_lines

#: Points drawn of one curve, models whose curves are drawn, panels of a figure.
_POINTS = 400
_SHOWN_MODELS = 16
_PANELS = 4
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
#: Panels that come first, where they exist; `main` repeats the number by which epochs are selected.
_FIRST = ("loss total", "loss", "accuracy", "segment Type", "event Type")
_LEFT_OUT = ("epoch", "step", "iteration", "seed", "lr", "main", "time")


@dataclass(frozen=True)
class CurveFigure:
    """Learning curves of one model, all its seeds over each other."""

    name: str
    runs: int
    svg: str


def curve_files(run: Run, folder: Path) -> list[Path]:
    """Curves below a folder, one file per training."""
    found = {path.parent: path for path in sorted(folder.glob("**/curves.jsonl"))}
    found |= {path.parent: path for path in sorted(folder.glob("**/curves.json"))}
    return [found[parent] for parent in sorted(found)]


def epochs(run: Run, path: Path) -> Iterator[dict[str, Any]]:
    """Records of a curve file."""
    if path.suffix == ".jsonl":
        yield from json_lines(run, path)
        return
    name = path.relative_to(run.path).as_posix()
    content = run.attempt(name, lambda: json.loads(path.read_text(encoding="utf-8")))
    if content is not None and not isinstance(content, list):
        run.note(name, f"a list of epochs was expected, found {type(content).__name__}")
    for entry in content if isinstance(content, list) else ():
        if isinstance(entry, dict):
            yield entry


def seconds_per_epoch(run: Run, folder: Path) -> float | None:
    """Mean time of a training epoch without evaluation; None if it was not recorded."""
    found = [
        float(entry["train_s"])
        for path in curve_files(run, folder)
        for entry in epochs(run, path)
        if isinstance(entry.get("train_s"), int | float)
    ]
    return float(np.mean(found)) if found else None


def curve_figures(run: Run, folder: str) -> list[CurveFigure]:
    """A figure per model below `train` or `finetune`; folders that differ by a trailing seed are one model."""
    models: dict[str, list[dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]]] = {}
    for path in curve_files(run, run.path / folder):
        series = _series(run, path, 0 if folder == "finetune" else 1)
        if series:
            name = path.parent.relative_to(run.path / folder).as_posix()
            stem, _, seed = name.rpartition("-")
            model = stem if stem and seed.isdigit() else name
            models.setdefault(folder if model == "." else model, []).append(series)
    made = []
    for number, (model, runs) in enumerate(list(models.items())[:_SHOWN_MODELS]):
        made.append(CurveFigure(model, len(runs), _draw(runs, f"{folder}{number}", f"learning curves of {model}")))
    if len(models) > _SHOWN_MODELS:
        run.note(folder, f"the curves of {len(models) - _SHOWN_MODELS} more models are not drawn")
    return made


def _series(run: Run, path: Path, first: int) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """(split, what) -> x and y, thinned to a bounded number of points.

    Args:
        first: what epoch 0 of the file is called: 1 where it is the first epoch, 0 where it is the state before.
    """
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for count, entry in enumerate(epochs(run, path)):
        x = entry.get("epoch", entry.get("step", count))
        x = float(x) if isinstance(x, int | float) else float(count)
        for words, value in _leaves(entry):
            split = next((_SPLITS[word] for word in words if word in _SPLITS), "train")
            what = " ".join(word for word in words if word not in _SPLITS)
            if what and words[-1] != "s" and not set(words) & set(_LEFT_OUT):
                points.setdefault((split, what), []).append((x + first, value))
    found = {}
    for name, pairs in points.items():
        places = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _POINTS)).round().astype(np.int64))
        kept = np.array(pairs)[places]
        found[name] = (kept[:, 0], kept[:, 1])
    return found


def _leaves(value: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Numbers of nested dictionaries with the words on the way to them: `val_loss` is `val`, `loss`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*words, *str(name).replace("_", " ").split()))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and words:
        yield words, float(value)


def _draw(runs: list[dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]], prefix: str, label: str) -> str:
    panels: dict[str, list[figures.Line]] = {}
    for series in runs:
        for (split, what), (x, y) in series.items():
            line = figures.Line(split, x, y, series=("train", "val", "test").index(split), dashed=split == "test")
            panels.setdefault(what, []).append(line)
    rank = {what: place for place, what in enumerate(_FIRST)}
    # Terms of a loss are left to the file where their total is there.
    terms = {what for what in panels if what.startswith("loss ")} - {"loss total"} if "loss total" in panels else set()
    order = sorted(panels.keys() - terms, key=lambda what: (rank.get(what, len(rank)), "loss" not in what, what))[
        :_PANELS
    ]
    return figures.curves([(what, panels[what]) for what in order], "epoch", prefix, label)
