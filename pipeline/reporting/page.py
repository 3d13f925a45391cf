"""The page: records into one self-contained HTML file.  It loads nothing, runs no script and escapes all text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reporting import (
    clip_figure,
    clips,
    coverage,
    curves,
    decisions,
    provenance,
    pseudolabels,
    scores,
    tuning,
    values,
)
from pipeline.reporting.gather import Run

TEMPLATES = Path(__file__).parent / "templates"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

#: Parts of a run folder and the command that makes each, for the list of what is absent.
PARTS = (
    ("manifest.parquet", "manifest", "prepare"),
    ("media", "media", "acquire"),
    ("ledger.jsonl", "ledger of the acquisition", "acquire"),
    ("features", "feature store", "extract"),
    ("receipts", "receipts", "the workflow"),
    ("benchmarks", "time and memory of jobs", "the workflow"),
    ("labels", "pseudo-labels", "pseudolabel"),
    ("finetune", "contrastive fine-tuning", "finetune"),
    ("effect.json", "what fine-tuning changed", "effect"),
    ("train", "training runs", "train"),
    ("scores", "scores", "score"),
)


@dataclass(frozen=True)
class Section:
    """A section of the page: it appears when `context` is not empty.  `template` lies in `templates/`."""

    anchor: str
    title: str
    template: str
    context: Any


def _has(run: Run, name: str) -> bool:
    """Clips may lie in another folder than the run's."""
    return (run.media if name == "media" else run.path / name).exists()


def sections(run: Run, count: int) -> list[Section]:
    """What there is to show, in reading order.  A new section is a line here, a reader and a template."""

    def panels() -> list[clips.ClipPanel]:
        return clips.panels(run, list(decisions.all_decisions(run)), count)

    parts: tuple[tuple[str, str, str, Callable[[], Any]], ...] = (
        ("scores", "Scores", "scores.html.j2", lambda: scores.score_tables(run)),
        ("clips", "A few clips", "clips.html.j2", panels),
        ("coverage", "Coverage", "coverage.html.j2", lambda: coverage.coverages(run)),
        ("labels", "Pseudo-labels", "pseudolabels.html.j2", lambda: pseudolabels.label_reports(run)),
        ("curves", "Learning curves", "curves.html.j2", lambda: curves.curve_figures(run, "train")),
        ("finetune", "Contrastive fine-tuning", "finetune.html.j2", lambda: tuning.tuning_report(run)),
        ("values", "Are the values sane?", "values.html.j2", lambda: values.statistics(run)),
        ("ran", "What ran", "provenance.html.j2", lambda: provenance.provenance(run)),
    )
    made = [(anchor, title, template, run.attempt(title, build)) for anchor, title, template, build in parts]
    return [Section(*entry) for entry in made if entry[3]]


def render(run: Run, count: int = 6) -> str:
    """The whole page.

    Args:
        count: clips to show.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        thousands=lambda number: f"{number:,}",
        per_cent=lambda share: f"{100 * share:.1f} %",
        short=lambda number: f"{number:.4g}",
        clock=_clock,
        arguments=_arguments,
    )
    made = sections(run, count)
    text = environment.get_template("page.html.j2").render(
        title=f"{run.manifest.dataset if run.manifest else 'run'}: report",
        manifest=run.manifest,
        title_of_dataset=run.manifest.facts.get("title", "") if run.manifest else "",
        events=_events(run),
        keys=run.keys,
        random_keys=run.random_keys,
        sections=made,
        absent=[(name, what, command) for name, what, command in PARTS if not _has(run, name)],
        notes=run.notes,
        geometry=(clip_figure.LEFT, clip_figure.RIGHT, clip_figure.WIDTH_IN),
        group_meaning=coverage.GROUP_MEANING,
    )
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _events(run: Run) -> dict[str, int]:
    """Events of the manifest by modality."""
    counts: dict[str, int] = {}
    for clip in run.manifest.clips if run.manifest else ():
        for event in clip.events:
            counts[event.modality] = counts.get(event.modality, 0) + 1
    return counts


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours and not minutes:
        return f"{seconds:.1f} s"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _arguments(text: str) -> str:
    """The arguments of a receipt as a person reads them."""
    found = json.loads(text)
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in found.items())
