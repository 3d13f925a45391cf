"""Before anything runs: the jobs, hours and bytes of a configuration, dataset by dataset.

Hours come from throughputs that were measured (workflows/config/throughput.yaml says where and how); what was never
measured is printed as unknown, and a sum that lacks a part says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from pipeline import configuration
from pipeline.bill import FILES_PER_BLOCK, THROUGHPUT, Bill, bill, rates, together
from pipeline.run import DONE, UsageError, command, log, write_json

#: Rules that compute for long, and whose cost nothing here tells.
#: `ave-h5` is double precision, and the mean over a map's 49 places is a file of its own.
_EXPORT_FACTORS = {"ave-h5": 2.05}
_NEVER_MEASURED = ("teach", "pseudolabel", "finetune", "train", "effect")

EXAMPLE = """\
example:
  python -m pipeline.plan --config workflows/config/demo.yaml
  python -m pipeline.plan --config workflows/config/real.yaml --clips 1000000 --clip-s 10   # suppose so many
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.plan",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", required=True, type=Path, help="as given to snakemake --configfile")
    made.add_argument("--throughput", type=Path, default=THROUGHPUT, help="measured rates (default: the project's)")
    made.add_argument("--clips", type=int, metavar="N", help="suppose that every dataset had N clips")
    made.add_argument("--clip-s", type=float, metavar="S", help="length of clips that no manifest states yet")
    made.add_argument("--json", type=Path, help="write the plan here too")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("plan"):
        return _plan(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    if arguments.clips is not None and arguments.clips < 1:
        raise UsageError(f"--clips {arguments.clips}: at least 1")
    config = configuration.read(arguments.config)
    if not config["datasets"]:
        raise ValueError(f"{arguments.config}: no datasets; nothing to plan")
    measured = rates(arguments.throughput, config["device"], config["precision"])
    if not measured:
        log(f"no throughput was measured for {config['device']}, {config['precision']}: hours are unknown")
    bills = [bill(dataset, config, measured, arguments.clips, arguments.clip_s) for dataset in config["datasets"]]
    for entry in bills:
        _print(entry, config)
    # what planning itself costs (benchmarks/planning_scale.py)
    _print_total(bills, config, configuration.read_yaml(arguments.throughput).get("planning") or {})
    if arguments.json:
        write_json(
            arguments.json,
            {"config": str(arguments.config), "datasets": [dataclasses.asdict(entry) for entry in bills]},
        )
    return DONE


def size(count: float | None) -> str:
    if count is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def hours(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.1f} h" if value >= 0.1 else f"{value * 60:.2g} min"


def _at_least(parts: list[float | None]) -> str:
    """Sum of the hours that are known, with how many are not."""
    known = [part for part in parts if part is not None]
    if not known:
        return "unknown"
    lacking = len(parts) - len(known)
    return f"at least {hours(sum(known))} ({lacking} of {len(parts)} unknown)" if lacking else hours(sum(known))


def _at_most(layout: str, feature_bytes: int | None) -> str:
    """Largest size of an export of these features; `dgsct` is made of pictures and sound instead."""
    if feature_bytes is None or layout == "dgsct":
        return "unknown"
    return f"at most {size(feature_bytes * _EXPORT_FACTORS.get(layout, 1))}"


def _print(entry: Bill, config: dict[str, Any]) -> None:
    each = "" if entry.clip_s is None else f" of {entry.clip_s:.3g} s on average"
    print(f"{entry.dataset}: {entry.clips:,} clips{each}")
    print("  jobs     " + ", ".join(f"{rule} {number:,}" for rule, number in entry.jobs.items()))
    device = "GPU" if config["device"].startswith("cuda") else "core"
    print(f"  {'feature':26} {'rows':>13} {'bytes':>9} {'files':>9} {device + ' encoding':>14} {'core decoding':>14}")
    for feature in entry.every_feature:
        rows = "unknown" if feature.rows is None else f"{feature.rows:,}"
        files = "unknown" if feature.blocks is None else f"{feature.blocks * FILES_PER_BLOCK:,}"
        print(
            f"  {feature.name:26} {rows:>13} {size(feature.bytes):>9} {files:>9} "
            f"{hours(feature.device_h):>14} {hours(feature.core_h):>14}"
        )
    if any(feature.made for feature in entry.every_feature):
        left = {feature.name: (feature.blocks or 0) - feature.made for feature in entry.every_feature}
        print("  to make  " + (", ".join(f"{name}: {n:,} blocks" for name, n in left.items() if n > 0) or "nothing"))
        print("  kept     " + (", ".join(name for name, n in left.items() if n <= 0) or "no feature is whole yet"))
    jobs = entry.jobs["extract"]
    device_h = together(feature.device_h for feature in entry.features)
    core_h = together(feature.core_h for feature in entry.features)
    if device_h is not None and core_h is not None:
        workers = config["workers"]
        # Decoding runs beside encoding in worker processes; with none, or on the same CPU core, they take turns.
        longest = max(device_h, core_h / workers) if workers else device_h + core_h
        asked = config["resources"].get("extract", config["resources"]["default"])["runtime_min"] / 60
        print(f"  one extract job takes about {hours(longest / jobs)}; it asks the cluster for {hours(float(asked))}")
        if longest / jobs > asked:
            log(f"{entry.dataset}: extract jobs need longer than resources.extract.runtime_min; raise it")
    if unmeasured := [f"{rule} {entry.jobs[rule]:,}" for rule in _NEVER_MEASURED if rule in entry.jobs]:
        print(f"  unknown  hours of {', '.join(unmeasured)}")
    if entry.unknown:
        log(
            f"{entry.dataset}: the throughput of {', '.join(entry.unknown)} is unmeasured, and nothing is guessed; "
            "benchmarks/throughput.py --write measures it on your machine"
        )
    print(f"  disk     features {size(entry.feature_bytes)}; clips {size(entry.media_bytes)}", end="")
    if entry.exports:
        limits = [f"{layout} {_at_most(layout, entry.feature_bytes)}" for layout in entry.exports]
        print(f"; exports {', '.join(limits)}", end="")
    if entry.jobs.get("release"):
        print(f"; release {size(entry.feature_bytes)}", end="")
    print("\n")


def _print_total(bills: list[Bill], config: dict[str, Any], planning: dict[str, Any]) -> None:
    jobs = sum(sum(entry.jobs.values()) for entry in bills)
    device = "GPU-hours" if config["device"].startswith("cuda") else "core-hours of encoding"
    print(f"together: {jobs:,} jobs, {sum(entry.clips for entry in bills):,} clips")
    features = [feature for entry in bills for feature in entry.every_feature]
    print(f"  {device}: {_at_least([feature.device_h for feature in features])}", end="")
    print(f"; core-hours of decoding: {_at_least([feature.core_h for feature in features])}")
    print(f"  features on disk: {size(together(entry.feature_bytes for entry in bills))}", end="")
    files = together(entry.files for entry in bills)
    print(f" in {'an unknown number of' if files is None else format(files, ',')} files")
    for line in _breaks(max(entry.clips for entry in bills), jobs, config, planning):
        print(f"  {line}")


def _breaks(clips: int, jobs: int, config: dict[str, Any], planning: dict[str, Any]) -> list[str]:
    """What planning itself costs at this size, and which asked-for limit it meets first."""
    lines = []
    if "dry_run" in planning:
        cost = planning["dry_run"]
        seconds, memory = (float(cost[f"{unit}_base"]) + float(cost[f"{unit}_per_job"]) * jobs for unit in ("s", "mb"))
        lines.append(f"a dry run takes about {seconds:,.0f} s and {memory:,.0f} MB")
    if "job_start" in planning:
        cost = planning["job_start"]
        seconds, memory = (
            float(cost[f"{unit}_base"]) + float(cost[f"{unit}_per_clip"]) * clips for unit in ("s", "mb")
        )
        asked = config["resources"].get("extract", config["resources"]["default"])["mem_mb"]
        together_h = hours(seconds * -(-clips // config["job_clips"]) / 3600)
        lines.append(
            f"every extract job first imports, reads its part of the manifest and opens the store: {seconds:,.0f} s, "
            f"at most {memory:,.0f} MB, {together_h} for all jobs; larger job_clips means fewer starts"
        )
        if memory > asked / 2:
            lines.append(f"that is over half of the {asked:,} MB that an extract job asks for: raise its mem_mb")
    return lines


if __name__ == "__main__":
    sys.exit(main())
