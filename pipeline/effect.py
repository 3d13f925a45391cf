"""Stage: a visual feature before and after fine-tuning in; retrieval, linear probe and trained models of both out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.manifest import Manifest
from pipeline.run import DONE, command, log, receipt, write_json
from pipeline.store import FeatureStore

EXAMPLE = """\
Extract with the tuned weights into the same store first.  Scores of models are taken as they are given: those that read
the feature before or after, seed by seed.

example:
  python -m pipeline.extract --manifest demo/manifest.parquet --media demo/media --store demo/features \\
      --encoders clip-tiny --weights clip-tiny=demo/finetune/clip-tiny-0/clip-tiny.safetensors
  python -m pipeline.effect --manifest demo/manifest.parquet --store demo/features \\
      --tuning demo/finetune/clip-tiny-0/finetune.json --out demo/effect.json
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.effect",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--store", required=True, type=Path, help="feature store with the features before and after")
    made.add_argument("--tuning", required=True, type=Path, nargs="+", help="finetune.json of one or more seeds")
    made.add_argument("--scores", type=Path, nargs="*", default=[], help="JSON files of pipeline.score")
    made.add_argument("--probe-seeds", type=int, nargs="*", default=[0, 1, 2], help="none: no linear probe")
    made.add_argument("--out", required=True, type=Path, help="JSON to write")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("effect"):
        return _effect(arguments)


def _effect(arguments: argparse.Namespace) -> int:
    from pipeline.finetuning.effect import effects

    manifest, store = Manifest.load(arguments.manifest).check(), FeatureStore.open(arguments.store)
    tunings, scores = _records(arguments.tuning, "finetune"), _records(arguments.scores, "score")
    found = effects(tunings)
    made = [_rows(effect, manifest, store, scores, arguments.probe_seeds) for effect in found]
    options = {"probe_seeds": arguments.probe_seeds}
    write_json(arguments.out, receipt("effect", options, manifest=manifest.digest, effects=made))
    for entry in made:
        print(f"{entry['visual']} against {entry['audio']}, {entry['dataset']}")
        for row in entry["rows"]:
            print(f"  {row['measure']:44} {_spread(row['before'])}  ->  {_spread(row['after'])}   {row['verdict']}")
    return DONE


def _records(paths: list[Path], stage: str) -> list[dict[str, Any]]:
    """Receipts of one stage.

    Raises:
        ValueError: files of another kind, or damaged ones; all are named.
    """
    made, problems = [], []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: unreadable ({error})")
            continue
        kind = content.get("stage", "nothing known") if isinstance(content, dict) else "nothing known"
        if kind != stage:
            problems.append(f"{path}: made by {kind}")
        made.append(content)
    if problems:
        flag = {"finetune": "--tuning takes finetune.json of", "score": "--scores takes JSON files of"}[stage]
        raise ValueError("\n  ".join([f"{flag} `python -m pipeline.{stage}`, and these are none:", *problems]))
    return made


def _rows(effect: Any, manifest: Manifest, store: FeatureStore, scores: list, seeds: list[int]) -> dict[str, Any]:
    from pipeline.finetuning.effect import Row, model_rows, retrieval_rows
    from pipeline.finetuning.probe import probe

    facts = effect.facts
    if facts["manifest"] != manifest.digest:
        raise ValueError(f"{facts['visual']} was tuned on another manifest than the one given")
    named = {store.spec(key).weights: key for key in store if store.spec(key).name == facts["visual"]}
    lacking = [weights for weights in (facts["weights"], *effect.tuned_weights) if weights not in named]
    if lacking:
        raise ValueError(
            f"{store.path}: no {facts['visual']} made with {', '.join(weights[:23] for weights in lacking)}; extract "
            f"with --weights {facts['visual']}=FILE first"
        )
    before, after = named[facts["weights"]], {named[weights]: seed for weights, seed in effect.tuned_weights.items()}
    rows = retrieval_rows(effect)
    if seeds and not any(event.modality == "both" for clip in manifest.split("train") for event in clip.events):
        log(f"no linear probe: {manifest.dataset} says of no training clip when an event is seen and heard")
    elif seeds:
        untouched = dict(zip(seeds, probe(manifest, store, before, seeds), strict=True))
        # The probe of a seed sees the encoder tuned with that seed, or the first one where there is none.
        by_seed = {seed: key for key, seed in after.items()}
        first = next(iter(after))
        tuned = {seed: probe(manifest, store, by_seed.get(seed, first), [seed])[0] for seed in seeds}
        rows.append(Row("AVE accuracy of a linear probe", untouched, tuned, "a seed draws the training clips anew"))
    rows += model_rows(effect, before, after, scores)
    return {
        "visual": facts["visual"],
        "audio": facts["audio"]["name"],
        "dataset": manifest.dataset,
        "seeds": sorted(effect.tunings),
        "before": before,
        "after": {str(seed): key for key, seed in after.items()},
        "rows": [row.to_dict() for row in rows],
    }


def _spread(values: dict[int, float]) -> str:
    import numpy as np

    found = list(values.values())
    return f"{np.mean(found):5.1f}" + (f" ± {np.std(found, ddof=1):4.1f}" if len(found) > 1 else " " * 7)


if __name__ == "__main__":
    sys.exit(main())
