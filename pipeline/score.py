"""Stage: stored predictions in, scores out, beside what no feature is needed for."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.manifest import Manifest
from pipeline.metrics.ave import GATES
from pipeline.metrics.avvp import COLUMNS
from pipeline.predictions import Predictions, measure, references
from pipeline.run import DONE, command, log, receipt, write_json

EXAMPLE = """\
Give the predictions of several seeds to get their mean and spread.

example:
  python -m pipeline.score --manifest demo/manifest.parquet \\
      --predictions demo/train/avel-supervised-0/predictions.npz --out demo/scores/avel-supervised-0.json
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.score",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="the one that the training used")
    made.add_argument("--predictions", required=True, type=Path, nargs="+", help="predictions.npz of pipeline.train")
    made.add_argument("--out", required=True, type=Path, help="JSON to write")
    made.add_argument("--gate-is", choices=GATES, help="read relevance differently, to reproduce a public evaluation")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("score"):
        return _score(arguments)


def _score(arguments: argparse.Namespace) -> int:
    manifest = Manifest.load(arguments.manifest).check()
    runs = [Predictions.load(path) for path in arguments.predictions]
    first = runs[0].facts
    for path, run in zip(arguments.predictions, runs, strict=True):
        _check(path, run, manifest, first)
        if run.facts.get("content") != first.get("content"):
            log(f"{path}: trained on features or labels that were made anew, not on those of the first file")
    _seeds_once(arguments.predictions, runs)
    _same_clips(arguments.predictions, runs)
    scored = [score_run(run, manifest, arguments.gate_is or run.facts["gate_is"]) for run in runs]
    result = receipt(
        "score",
        {"gate_is": arguments.gate_is or first["gate_is"]},
        model=first["model"],
        setting=first["setting"],
        task=first["task"],
        dataset=manifest.dataset,
        manifest=manifest.digest,
        annotations=manifest.facts.get("annotations", {}),
        features=first["features"],
        labels=first["labels"],
        experiment=experiment(first),
        coverage=first["coverage"],
        published=first["recipe"]["published"],
        references=_references(runs[0], manifest),
        runs=[
            {"seed": run.facts["seed"], "epoch": run.facts["best"], "scores": values}
            for run, values in zip(runs, scored, strict=True)
        ],
        summary=summary(scored),
    )
    write_json(arguments.out, result)
    _show(result)
    return DONE


def _check(path: Path, run: Predictions, manifest: Manifest, first: dict[str, Any]) -> None:
    if run.facts["manifest"] != manifest.digest:
        raise ValueError(
            f"{path}: made with another manifest ({run.facts['dataset']}, digest {run.facts['manifest'][:12]}); given: "
            f"{manifest.dataset}, digest {manifest.digest[:12]}"
        )
    for name in ("model", "setting", "features", "labels", "background", "precision"):
        if run.facts.get(name) != first.get(name):
            raise ValueError(f"{path}: {name} is {run.facts.get(name)}, not {first.get(name)} as in the first file")
    own, other = _settings(run.facts), _settings(first)
    if own != other:
        names = ", ".join(name for name in own if own[name] != other.get(name))
        raise ValueError(f"{path}: trained with other settings than the first file: {names}")


def _seeds_once(paths: list[Path], runs: list[Predictions]) -> None:
    """A training counted twice makes the spread over seeds too small."""
    by_seed: dict[int, list[str]] = {}
    for path, run in zip(paths, runs, strict=True):
        by_seed.setdefault(run.facts["seed"], []).append(str(path))
    if twice := [f"seed {seed}: {', '.join(files)}" for seed, files in by_seed.items() if len(files) > 1]:
        raise ValueError("\n  ".join(["each seed counts once in a mean; give one file of each:", *twice]))


def _same_clips(paths: list[Path], runs: list[Predictions]) -> None:
    """A mean over seeds that were scored on different clips is a mean of nothing."""
    scored = [set(zip(run.splits.tolist(), run.clips.tolist(), strict=True)) for run in runs]
    if any(clips != scored[0] for clips in scored):
        shared = set.intersection(*scored)
        lines = [
            f"{path}: " + ", ".join(f"{count} of {split}" for split, count in Counter(run.splits.tolist()).items())
            for path, run in zip(paths, runs, strict=True)
        ]
        raise ValueError(
            "\n  ".join(["these trainings were scored on different clips, so they have no mean:", *sorted(lines)])
            + f"\n  common to all are {len(shared)}. Train them on the same features, or score each into its own file"
        )


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """The recipe without what differs between seeds, or changes nothing."""
    return {name: value for name, value in facts["recipe"].items() if name not in ("seed", "published", "source")}


def experiment(facts: dict[str, Any]) -> str:
    """Short hash of all that a training depends on beside seed, features and data: runs that share it are repeats.

    Args:
        facts: of `Predictions`.
    """
    settings = {name: value for name, value in _settings(facts).items() if name != "features"}
    parts = [settings, *(facts.get(name) for name in ("labels", "background", "precision"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _truth(run: Predictions, manifest: Manifest, split: str) -> dict[str, np.ndarray]:
    from pipeline.targets import targets

    arrays = next(iter(run.arrays.values()))
    segments = next(arrays[name] for name in ("scores", "gate", "audio") if name in arrays).shape[1]
    row = {clip_id: number for number, clip_id in enumerate(manifest.ids)}
    rows = np.array([row[clip_id] for clip_id in run.clips[run.splits == split]])
    return {name: values[rows] for name, values in targets(manifest, run.facts["task"], segments).items()}


def score_run(run: Predictions, manifest: Manifest, gate_is: str) -> dict[str, dict[str, Any]]:
    """Selection -> split -> scores of one training, recomputed from its predictions."""
    truth = {split: _truth(run, manifest, split) for split in np.unique(run.splits)}
    return {
        selection: {
            split: measure(run.facts["task"], run.of(selection, split), truth[split], gate_is) for split in truth
        }
        for selection in run.arrays
    }


def _references(run: Predictions, manifest: Manifest) -> dict[str, Any]:
    return {
        split: references(run.facts["task"], _truth(run, manifest, split)) for split in map(str, np.unique(run.splits))
    }


def summary(scored: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Selection -> split -> mean and standard deviation over runs of the main score; spread is None for one run."""
    found: dict[str, dict[str, Any]] = {}
    for selection in scored[0]:
        for split in scored[0][selection]:
            values = [run[selection][split]["main"] for run in scored]
            found.setdefault(selection, {})[split] = {
                "mean": float(np.mean(values)),
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "runs": len(values),
            }
    return found


def _show(result: dict[str, Any]) -> None:
    name = "accuracy" if result["task"] == "ave" else "segment-level Type@AV"
    for selection, splits in result["summary"].items():
        for split, value in splits.items():
            spread = f" +- {value['spread']:.2f}" if value["spread"] is not None else ""
            print(f"{selection}, {split}: {name} {value['mean']:.2f}{spread} over {value['runs']} run(s)")
    if result["task"] == "avvp":
        for level in ("segment", "event"):
            row = result["runs"][0]["scores"]["best-validation"].get("test", {}).get(level)
            if row:
                print(f"test, {level}: " + " ".join(f"{column} {row[column]:.1f}" for column in COLUMNS))
    for split, values in result["references"].items():
        for reference, value in values.items():
            shown = value if isinstance(value, float) else value["segment"]["Type"]
            log(f"{split}, {reference}: {shown:.2f}")


if __name__ == "__main__":
    sys.exit(main())
