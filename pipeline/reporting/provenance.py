"""What ran: feature keys, receipts with their versions and arguments, time and memory of the jobs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from extractors.spec import FeatureSpec
from pipeline.reporting.gather import Run, json_files, table_rows

#: Distinct sets of arguments shown per stage; the rest is counted.
SHOWN_ARGUMENTS = 12
#: Arguments that differ from job to job by design.
_PER_JOB = ("shard", "job", "seed")


@dataclass(frozen=True)
class FeatureKey:
    """One planned feature."""

    key: str
    spec: FeatureSpec

    @property
    def grid(self) -> str:
        grid = self.spec.grid
        rows = f"{grid.count} rows" if grid.count is not None else "as many rows as fit"
        return f"{grid.window_s:g} s every {grid.hop_s:g} s, {rows}"

    @property
    def frames(self) -> str:
        sampler = self.spec.sampler
        return "" if sampler is None else f"{sampler.per_row} per row, {sampler.rule}, {sampler.source}"

    @property
    def shape(self) -> str:
        return " x ".join(map(str, self.spec.shape))


@dataclass
class Stage:
    """The receipts of one stage, added up."""

    name: str
    receipts: int = 0
    arguments: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def shown_arguments(self) -> list[tuple[str, int]]:
        return sorted(self.arguments.items())[:SHOWN_ARGUMENTS]

    @property
    def hidden_arguments(self) -> int:
        return max(len(self.arguments) - SHOWN_ARGUMENTS, 0)


@dataclass
class Job:
    """The benchmark files of one rule, added up; memory is the largest resident set, MB."""

    rule: str
    jobs: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    memory_mb: float = 0.0


@dataclass(frozen=True)
class Provenance:
    keys: tuple[FeatureKey, ...]
    stages: tuple[Stage, ...]
    versions: dict[str, list[str]]
    jobs: tuple[Job, ...]

    def __bool__(self) -> bool:
        return bool(self.keys or self.stages or self.jobs)

    @property
    def mixed(self) -> list[str]:
        """Packages of which several versions took part."""
        return [name for name, found in self.versions.items() if len(found) > 1]


def provenance(run: Run) -> Provenance:
    """Read specs, receipts and benchmark files; linear in their number."""
    stages: dict[str, Stage] = {}
    versions: dict[str, set[str]] = {}
    for folder, pattern in (("receipts", "**/*.json"), ("train", "*/train.json"), ("scores", "*.json")):
        for name, content in json_files(run, folder, pattern):
            run.attempt(name, _add_receipt, name, content, stages, versions)
    keys = []
    for key in run.keys:
        spec = run.attempt(f"features/{key}", run.store.spec, key)
        if spec is not None:
            keys.append(FeatureKey(key, spec))
    return Provenance(
        tuple(keys),
        tuple(stages[name] for name in sorted(stages)),
        {name: sorted(versions[name]) for name in sorted(versions)},
        _jobs(run),
    )


def _add_receipt(name: str, content: dict, stages: dict[str, Stage], versions: dict[str, set[str]]) -> None:
    stage = str(content.get("stage") or name.split("/")[0])
    entry = stages.setdefault(stage, Stage(stage))
    entry.receipts += 1
    arguments = content.get("arguments")
    if isinstance(arguments, dict):
        kept = {key: value for key, value in arguments.items() if key not in _PER_JOB and _short(value)}
        entry.arguments[json.dumps(kept, sort_keys=True, ensure_ascii=False)] += 1
    for package, version in (content.get("versions") or {}).items():
        versions.setdefault(str(package), set()).add(str(version))
    for feature in (content.get("features") or {}).values() if isinstance(content.get("features"), dict) else ():
        if isinstance(feature, dict) and isinstance(feature.get("outcomes"), dict):
            entry.outcomes.update(feature["outcomes"])


def _short(value: Any) -> bool:
    """Worth a place in a table: not a record inside a record, which other sections show."""
    if isinstance(value, dict):
        return not any(isinstance(item, dict | list) for item in value.values())
    return value is not None and len(str(value)) <= 400


def _jobs(run: Run) -> tuple[Job, ...]:
    """Rules by the first part of the file's path: `extract/0.tsv` and `extract.tsv` are jobs of `extract`."""
    found: dict[str, Job] = {}
    for name, row in table_rows(run, "benchmarks"):
        rule = name.split("/")[0].removesuffix(".tsv")
        job = found.setdefault(rule, Job(rule))
        seconds, memory = _number(row.get("s")), _number(row.get("max_rss"))
        job.jobs += 1
        job.total_s += seconds
        job.longest_s = max(job.longest_s, seconds)
        job.memory_mb = max(job.memory_mb, memory)
    return tuple(found[rule] for rule in sorted(found))


def _number(text: str | None) -> float:
    """Snakemake writes `-` or `NA` for what it could not measure."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
