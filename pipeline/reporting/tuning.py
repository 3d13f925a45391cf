"""Contrastive fine-tuning: what it changed, whether it helps or not, and its learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.reporting.curves import CurveFigure, curve_figures
from pipeline.reporting.gather import Run, json_files
from pipeline.reporting.scores import numbers, spread


@dataclass(frozen=True)
class EffectRow:
    """One measure before and after; means with the sample standard deviation over seeds."""

    measure: str
    before: str
    after: str
    change: str
    seeds: int
    verdict: str
    note: str


@dataclass(frozen=True)
class EffectTable:
    """One encoder that was tuned against one sound."""

    title: str
    rows: list[EffectRow]


@dataclass(frozen=True)
class TuningReport:
    """Tables of `pipeline.effect`, what each fine-tuning ran on, and curves; true if there is anything."""

    tables: list[EffectTable]
    runs: list[str]
    figures: list[CurveFigure]

    def __bool__(self) -> bool:
        return bool(self.tables or self.runs or self.figures)


def tuning_report(run: Run) -> TuningReport:
    """Everything below `finetune` and every `effect*.json` of the run folder."""
    tables = []
    for name, content in json_files(run, ".", "effect*.json"):
        tables += run.attempt(name, _tables, content) or []
    runs = [
        text
        for name, content in json_files(run, "finetune", "*/finetune.json")
        if (text := run.attempt(name, _ran, name, content))
    ]
    return TuningReport(tables, runs, curve_figures(run, "finetune"))


def _tables(content: dict[str, Any]) -> list[EffectTable]:
    return [
        EffectTable(
            f"{entry['visual']} against {entry['audio']}, seeds {', '.join(map(str, entry['seeds']))}",
            [_row(row) for row in entry["rows"]],
        )
        for entry in content["effects"]
    ]


def _row(row: dict[str, Any]) -> EffectRow:
    before, after = (list(numbers(row[side]).values()) for side in ("before", "after"))
    gains = [float(value) for value in row["gains"]]
    change = "—"
    if gains:
        change = f"{round(float(np.mean(gains)), 1) + 0.0:+.1f}" + (
            f" ± {np.std(gains, ddof=1):.1f}" if len(gains) > 1 else ""
        )
    return EffectRow(
        row["measure"], spread(before), spread(after), change, len(gains), str(row["verdict"]), str(row["note"])
    )


def _ran(name: str, content: dict[str, Any]) -> str:
    """One line: data, loss, how it ended, clips that could not take part."""
    recipe, clips = content["arguments"]["recipe"], content["arguments"]["clips"]
    best = (content.get("best") or {}).get("epoch", content["epochs"])
    left = {**clips["excluded"], **content["refused"]["counts"]}
    without = ", ".join(f"{count} x {reason}" for reason, count in sorted(left.items()))
    return (
        f"{name.split('/')[1]}: {recipe['loss']} loss, {recipe['tune']} tuned, {clips['train']} clips "
        f"({clips['validation']} for validation), {content['epochs']} epochs"
        f"{', stopped early' if content['stopped_early'] else ''}, best is {best}"
        + (f"; left out: {without}" if without else "")
    )
