"""Scores: a row per model over its seeds, the references that need no feature, published numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.metrics import avvp
from pipeline.reporting import figures
from pipeline.reporting.curves import seconds_per_epoch
from pipeline.reporting.gather import Run, json_files

#: The selection whose numbers fill the table, and the one that most papers report.
HONEST, OPTIMISTIC = "best-validation", "best-test"
#: The number a model is known by, per task.
_HEADLINES = {"ave": "accuracy", "avvp": "segment Type"}
#: Columns as papers print them; others follow.
_ORDER = ("accuracy", *(f"{level} {column}" for level in ("segment", "event") for column in avvp.COLUMNS))


@dataclass
class Group:
    """The trainings of one model in one setting with the same features, labels and recipe; the runs differ by seed.

    Args:
        variant: the name that a configuration gives to a training, to tell it from others of the same model.
        features: stream -> feature key.
        scores: column -> one value per run.
        facts: what else the table says: parameters, seconds per epoch, clips, published number.
        random: some feature comes from random weights.
        letter: of the features, below the table.
    """

    model: str
    setting: str
    features: dict[str, str]
    variant: str = ""
    seeds: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    random: bool = False
    letter: str = ""

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.model, self.setting, self.variant) if part)

    def cell(self, column: str) -> str:
        return spread(self.scores.get(column, []))


@dataclass
class ScoreTable:
    """The groups of one task on one split.

    Args:
        split: that was scored.
        references: name -> column -> a value that needs no feature.
    """

    task: str
    split: str
    columns: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    svg: str = ""

    @property
    def headline(self) -> str:
        """The column of the picture."""
        wanted = _HEADLINES.get(self.task, "")
        return wanted if wanted in self.columns else self.columns[0]

    @property
    def feature_sets(self) -> dict[str, Group]:
        """Letter -> a group with these features: keys are too long for a column."""
        return {group.letter: group for group in self.groups}

    def label(self, group: Group) -> str:
        """Name in the picture, with the letter where it alone tells two rows apart."""
        twins = sum(other.name == group.name for other in self.groups)
        return f"{group.name} ({group.letter})" if twins > 1 else group.name

    @property
    def fact_names(self) -> list[str]:
        return list(dict.fromkeys(name for group in self.groups for name in group.facts))


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation over seeds; the value alone if there is one.

    >>> spread([1.0, 2.0, 3.0])
    '2.0 ± 1.0'
    """
    if not values:
        return "—"
    mean = float(np.mean(values))
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {float(np.std(values, ddof=1)):.1f}"


def score_tables(run: Run) -> list[ScoreTable]:
    """One table per task and split, from `scores/*.json` of `pipeline.score` and `train/*/train.json`."""
    training = _trainings(run)
    tables: dict[tuple[str, str], ScoreTable] = {}
    groups: dict[tuple, Group] = {}
    for name, content in json_files(run, "scores"):
        run.attempt(name, _add, name, content, tables, groups, training)
    made = [table for table in tables.values() if table.groups and table.columns]
    for number, table in enumerate(made):
        column = table.headline
        letters: dict[tuple, str] = {}
        for group in table.groups:
            features = tuple(sorted(group.features.items()))
            group.letter = letters.setdefault(features, _letter(len(letters)))
        rows = [figures.ScoreRow(table.label(g), tuple(g.scores[column])) for g in table.groups if g.scores.get(column)]
        references = {name: held[column] for name, held in table.references.items() if column in held}
        table.svg = figures.scores(
            rows, references, f"{column}, {table.split}, %", f"scores{number}", f"{column} of every model and seed"
        )
    return made


def _letter(number: int) -> str:
    """a to z, then aa, ab, ...

    >>> _letter(0), _letter(27)
    ('a', 'ab')
    """
    head, tail = divmod(number, 26)
    return (_letter(head - 1) if head else "") + chr(ord("a") + tail)


def _trainings(run: Run) -> dict[str, dict[str, str]]:
    """Name of a training, which its scores share -> facts that a table shows."""
    found = {}
    for name, content in json_files(run, "train", "*/train.json"):
        facts = {}
        if is_number(content.get("parameters")):
            facts["parameters"] = f"{content['parameters']:,}"
        seconds = seconds_per_epoch(run, (run.path / name).parent)
        if seconds is not None:
            facts["s per epoch"] = f"{seconds:.3g}"
        found[Path(name).parent.name] = facts
    return found


def _add(
    name: str,
    content: dict[str, Any],
    tables: dict[tuple[str, str], ScoreTable],
    groups: dict[tuple, Group],
    training: dict[str, dict[str, str]],
) -> None:
    model, setting, task = (str(content.get(field) or "") for field in ("model", "setting", "task"))
    features = {stream: _feature(entry) for stream, entry in (content.get("features") or {}).items()}
    used = 0
    for entry in content["runs"]:
        selections = {key: value for key, value in entry["scores"].items() if isinstance(value, dict)}
        honest = selections.get(HONEST) or next(iter(selections.values()))
        split = "test" if "test" in honest else next(iter(honest))
        values = numbers({key: value for key, value in honest[split].items() if key != "main"})
        if not values:
            continue
        used += 1
        table = tables.setdefault((task, split), ScoreTable(task, split))
        headline = _HEADLINES.get(task)
        optimistic = numbers(selections.get(OPTIMISTIC, {}).get(split, {}))
        if headline in optimistic:
            values[f"{headline}, best test epoch"] = optimistic[headline]
        table.columns = sorted({*table.columns, *values}, key=_rank)
        seed = str(entry.get("seed", "?"))
        same = tuple(sorted(features.items())), content.get("experiment") or repr(content.get("labels"))
        key = (task, split, model, setting, *same)
        if key not in groups:
            groups[key] = Group(model, setting, features, _variant(name, model, setting, seed))
            table.groups.append(groups[key])
        group = groups[key]
        if seed in group.seeds:
            table.notes.append(f"{name}: seed {seed} of {group.name} is in the table already and was left out.")
            continue
        group.random = group.random or any(_is_random(item) for item in (content.get("features") or {}).values())
        group.seeds.append(seed)
        for column, value in values.items():
            group.scores.setdefault(column, []).append(value)
        ran = training.get(Path(name).stem) or training.get(f"{model}-{setting}-{seed}", {})
        facts, clips = _facts(content, split), f"{split} clips"
        if group.facts.get(clips, facts.get(clips)) != facts.get(clips):
            table.notes.append(
                f"{name} was scored on {facts.get(clips, 'unknown')} clips, another seed of {group.name} on "
                f"{group.facts[clips]}: their mean is over different clips."
            )
        group.facts |= ran | facts
        _add_published_notes(content, group, table)
        _add_references(name, (content.get("references") or {}).get(split) or {}, table)
    if not used:
        raise ValueError("it holds no scores")


def _variant(name: str, model: str, setting: str, seed: str) -> str:
    """What a score file is called beside model, setting and seed: `tuned` of `avel-supervised-tuned-0.json`."""
    stem, beginning, end = Path(name).stem, f"{model}-{setting}-", f"-{seed}"
    return stem[len(beginning) : -len(end)] if stem.startswith(beginning) and stem.endswith(end) else ""


def _add_references(name: str, references: dict[str, Any], table: ScoreTable) -> None:
    for reference, held in references.items():
        found = {_HEADLINES.get(table.task, "score"): float(held)} if is_number(held) else numbers(held)
        if table.references.setdefault(str(reference), found) != found:
            line = f"The reference {reference!r} differs between runs: {name} was scored on other clips than the first."
            if line not in table.notes:
                table.notes.append(line)


def _rank(column: str) -> tuple[int, str]:
    return (_ORDER.index(column) if column in _ORDER else len(_ORDER), column)


def _feature(entry: Any) -> str:
    return str(entry.get("key") or entry.get("name")) if isinstance(entry, dict) else str(entry)


def _is_random(entry: Any) -> bool:
    return isinstance(entry, dict) and str(entry.get("weights")).startswith("random")


def _facts(content: dict[str, Any], split: str) -> dict[str, str]:
    found = {}
    clips = (content.get("coverage") or {}).get(split)
    if isinstance(clips, dict) and {"used", "clips"} <= clips.keys():
        found[f"{split} clips"] = f"{clips['used']} of {clips['clips']}"
    if published := _published(content):
        headline = _HEADLINES.get(str(content.get("task")))
        shown = {headline: published[headline]} if headline in published else published
        found["published, real data"] = _listed(shown)
    return found


def _published(content: dict[str, Any]) -> dict[str, float]:
    """Column -> number of the paper."""
    published = content.get("published")
    return numbers(published) if isinstance(published, dict) else {}


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:g}" for name in sorted(values, key=_rank))


def _add_published_notes(content: dict[str, Any], group: Group, table: ScoreTable) -> None:
    """What the published number is, below the table, and all of them where there are several."""
    published, found = content.get("published"), _published(content)
    texts = [published] if isinstance(published, str) else list((published or {}).values())
    for text in [*texts, _listed(found) if len(found) > 1 else None]:
        line = f"Published for {group.name}: {text}"
        if isinstance(text, str) and text and line not in table.notes:
            table.notes.append(line)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def numbers(value: Any, names: Iterable[str] = ()) -> dict[str, float]:
    """Numbers of nested dictionaries, by the names on the way to them.

    >>> numbers({"segment": {"A": 1, "V": 2.5}, "note": "x"})
    {'segment A': 1.0, 'segment V': 2.5}
    """
    names = tuple(names)
    if is_number(value):
        return {" ".join(names) or "score": float(value)}
    found: dict[str, float] = {}
    for name, item in value.items() if isinstance(value, dict) else ():
        found.update(numbers(item, (*names, str(name))))
    return found
