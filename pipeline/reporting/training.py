"""Training runs and their scores: a table per metric over the seeds, references to beat, learning curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.reporting import figures
from pipeline.reporting.gather import Run, json_files, json_lines
from pipeline.reporting.predictions import Predictions, read_predictions

#: Points drawn of one curve, and models whose curves are drawn.
_POINTS = 400
_SHOWN_MODELS = 16
#: The number a model is known by, best known first.
_HEADLINES = ("accuracy", "segment Type", "segment Type@AV", "average mAP", "mAP")
_SCORES = ("scores", "score", "metrics", "results")
_REFERENCES = ("references", "label_only", "reference", "baselines")
_NOT_CURVES = ("epoch", "step", "iteration", "seed", "seconds", "lr", "learning_rate", "wall", "time")
_SPLITS = ("train", "val", "validation", "test")


@dataclass
class Group:
    """The runs of one model in one setting with the same features.

    Args:
        scores: column -> one value per scored seed, in the order of `seeds`.
        facts: what the table says besides: parameters, seconds per epoch, published number.
        warnings: such as random weights under its features.
    """

    model: str
    setting: str
    features: str
    seeds: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    random: bool = False

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.model, self.setting) if part)

    def cell(self, column: str) -> str:
        """Mean and, with several seeds, the sample standard deviation."""
        return spread(self.scores.get(column, []))


@dataclass
class ScoreTable:
    """Groups that are measured in the same columns.

    Args:
        references: name -> column -> value that needs no feature.
    """

    columns: tuple[str, ...]
    groups: list[Group] = field(default_factory=list)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    svg: str = ""

    @property
    def headline(self) -> str:
        """The column of the picture."""
        for wanted in _HEADLINES:
            for column in self.columns:
                if column == wanted or column.endswith(f" {wanted}"):
                    return column
        return self.columns[0]

    @property
    def fact_names(self) -> list[str]:
        return list(dict.fromkeys(name for group in self.groups for name in group.facts))


@dataclass(frozen=True)
class CurveFigure:
    """Learning curves of one model, all its seeds."""

    name: str
    runs: int
    svg: str


def spread(values: list[float]) -> str:
    """`71.3 ± 0.4` over seeds, `71.3` of one, an em dash of none.

    >>> spread([1.0, 2.0, 3.0])
    '2.0 ± 1.0'
    """
    if not values:
        return "—"
    mean = float(np.mean(values))
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {float(np.std(values, ddof=1)):.1f}"


# ---- scores ---------------------------------------------------------------------------------------------------------


def score_tables(run: Run) -> list[ScoreTable]:
    """One table per set of columns, groups in order of name."""
    trained = {Path(name).parent.name: content for name, content in json_files(run, "train", "*/train.json")}
    groups: dict[tuple, Group] = {}
    tables: dict[tuple[str, ...], ScoreTable] = {}
    for name, content in json_files(run, "scores"):
        stem = Path(name).stem
        training = trained.get(stem, {})
        values = _numbers(_first(content, *_SCORES))
        if not values:
            values = _numbers({k: v for k, v in content.items() if k in ("accuracy", "segment", "event", "mAP")})
        if not values:
            run.note(name, "holds no scores")
            continue
        model, setting, seed = _identity(stem, content, training)
        features = _features(content) or _features(training)
        key = (tuple(values), model, setting, features)
        table = tables.setdefault(tuple(values), ScoreTable(tuple(values)))
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(model, setting, features, facts=_facts(content, training))
            table.groups.append(group)
        group.random = group.random or _random(content) or _random(training)
        group.seeds.append(seed)
        for column, value in values.items():
            group.scores.setdefault(column, []).append(value)
        references = _first(content, *_REFERENCES)
        if isinstance(references, dict):
            for reference, held in references.items():
                found = _reference(held, table)
                table.references.setdefault(str(reference), found)
                if table.references[str(reference)] != found:
                    line = f"the reference {reference!r} differs between runs; {name} has other truth than the first"
                    if line not in table.notes:
                        table.notes.append(line)
    made = list(tables.values())
    for number, table in enumerate(made):
        column = table.headline
        rows = [figures.ScoreRow(g.name, tuple(g.scores[column])) for g in table.groups if g.scores.get(column)]
        references = {name: held[column] for name, held in table.references.items() if column in held}
        table.svg = figures.scores(rows, references, column, f"scores{number}", f"{column} of every model and seed")
    return made


def _reference(value: Any, table: ScoreTable) -> dict[str, float]:
    """Values by column; a bare number is one of the headline column."""
    if _is_number(value):
        return {table.headline: float(value)}
    held = _numbers(value)
    return {c: number for c in table.columns for name, number in held.items() if c == name or c.endswith(f" {name}")}


def _identity(stem: str, content: dict, training: dict) -> tuple[str, str, str]:
    """Model, setting and seed: as recorded, else from the file's name `<model>-<setting>-<seed>`."""
    parts = stem.rsplit("-", 2)
    named = parts if len(parts) == 3 else [stem, "", ""]
    recorded = []
    for index, name in enumerate(("model", "setting", "seed")):
        value = _first(content, name)
        value = _first(training, name) if value is None else value
        recorded.append(named[index] if value is None or isinstance(value, dict | list) else str(value))
    return recorded[0], recorded[1], recorded[2]


def _features(content: dict) -> str:
    found = _first(content, "features", "keys", "streams")
    if isinstance(found, dict):
        found = [value if isinstance(value, str) else name for name, value in found.items()]
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")


def _random(content: dict) -> bool:
    return ".random." in json.dumps(_first(content, "features", "keys", "streams") or "")


def _facts(content: dict, training: dict) -> dict[str, str]:
    found = {}
    for title, names in (
        ("parameters", ("parameters", "trainable", "trainable_parameters")),
        ("epochs", ("epochs", "epochs_done", "epochs_run")),
        ("s per epoch", ("seconds_per_epoch", "epoch_s", "s_per_epoch")),
        ("published, real data", ("published",)),
    ):
        value = _first(training, *names)
        value = _first(content, *names) if value is None else value
        if isinstance(value, dict):
            value = ", ".join(
                f"{name} {item:,}" if _is_number(item) else f"{name} {item}" for name, item in value.items()
            )
        elif _is_number(value):
            value = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        if value not in (None, ""):
            found[title] = str(value)
    return found


def _first(content: dict, *names: str) -> Any:
    """The value under the first of the names that is there, at the top, then one level down."""
    levels = [content, *(value for value in content.values() if isinstance(value, dict))]
    for level in levels:
        for name in names:
            if level.get(name) is not None:
                return level[name]
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Numbers of nested dictionaries by the names on the way to them."""
    if _is_number(value):
        return {prefix or "score": float(value)}
    found: dict[str, float] = {}
    for name, item in value.items() if isinstance(value, dict) else ():
        found.update(_numbers(item, f"{prefix} {name}".strip()))
    return found


# ---- curves ---------------------------------------------------------------------------------------------------------


def curve_figures(run: Run, folder: str = "train") -> list[CurveFigure]:
    """Learning curves below `train` or `finetune`: a figure per model, the seeds over each other."""
    runs: dict[str, list[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]]] = {}
    for path in sorted((run.path / folder).glob("**/curves.jsonl")):
        series = _series(run, path)
        if series:
            name = path.parent.relative_to(run.path / folder).as_posix()
            stem, _, seed = name.rpartition("-")
            model = stem if stem and seed.isdigit() else name
            runs.setdefault(model if model != "." else folder, []).append((name, series))
    made = []
    for number, (model, entries) in enumerate(list(runs.items())[:_SHOWN_MODELS]):
        svg = _draw(entries, f"{folder}{number}", f"learning curves of {model}")
        made.append(CurveFigure(model, len(entries), svg))
    if len(runs) > _SHOWN_MODELS:
        run.note(folder, f"curves of {len(runs) - _SHOWN_MODELS} more models are not drawn")
    return made


def _series(run: Run, path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Field -> (x, y), thinned to a bounded number of points."""
    points: dict[str, list[tuple[float, float]]] = {}
    for count, entry in enumerate(json_lines(run, path)):
        values = _numbers(entry)
        x = next((values[name] for name in ("epoch", "step", "iteration") if name in values), float(count))
        for name, value in values.items():
            if not any(word in name.lower().replace("-", "_").split() for word in _NOT_CURVES) and not name.endswith(
                "_s"
            ):
                points.setdefault(name, []).append((x, value))
    found = {}
    for name, pairs in points.items():
        places = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _POINTS)).round().astype(np.int64))
        kept = np.array(pairs)[places]
        found[name] = (kept[:, 0], kept[:, 1])
    return found


def _split_of(name: str) -> tuple[str, str]:
    """(split, what is measured) of a field such as `val_loss` or `train accuracy`."""
    words = name.replace("_", " ").split()
    split = next((word for word in words if word.lower() in _SPLITS), "")
    rest = " ".join(word for word in words if word != split)
    return {"validation": "val"}.get(split.lower(), split.lower()), rest or "score"


def _draw(entries: list, prefix: str, label: str) -> str:
    panels: dict[str, list[figures.Line]] = {}
    for _, series in entries:
        for name, (x, y) in series.items():
            split, what = _split_of(name)
            colour = {"train": 0, "": 0, "val": 1, "test": 2}[split]
            panels.setdefault(what, []).append(figures.Line(split or what, x, y, colour, dashed=split == "test"))
    # The losses first, then what has been measured most; four panels are what a reader takes in.
    order = sorted(panels, key=lambda what: ("loss" not in what, -len(panels[what])))[:4]
    return figures.curves([(what, panels[what]) for what in order], "epoch", prefix, label)


# ---- predictions ----------------------------------------------------------------------------------------------------


def predictions(run: Run) -> Iterator[Predictions]:
    """Predictions of the first seed of each model, by name."""
    if run.manifest is None:
        return
    seen = set()
    for path in sorted((run.path / "train").glob("*/predictions*.npz")):
        name = path.parent.name
        stem, _, seed = name.rpartition("-")
        model = stem if stem and seed.isdigit() else name
        if model in seen:
            continue
        shown = run.attempt(f"train/{name}/{path.name}", read_predictions, path, name, tuple(run.manifest.classes))
        if shown is not None:
            seen.add(model)
            yield shown
