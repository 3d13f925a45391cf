"""Stage: stored features and captions in, labels of every segment out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from pipeline.labels import JOB_CLIPS, Labelling, LabelStore, Scoring
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.run import DONE, TOO_MANY_FAILED, UsageError, check_numbers, command, log, receipt, write_json
from pipeline.store import FeatureStore

EXAMPLE = """\
A teacher is a feature of the store whose encoder also reads text; give one per modality.  Scores are stored, so other
thresholds or masks need no encoder.

example:
  python -m pipeline.prepare --dataset demo --splits teacher --media demo/media --out demo/teacher.parquet
  python -m pipeline.teach --manifest demo/teacher.parquet --media demo/media --out demo/teachers
  python -m pipeline.extract --manifest demo/manifest.parquet --media demo/media --store demo/features \\
      --encoders clip-tiny,clap-tiny --weights clip-tiny=demo/teachers/clip-tiny.pt \\
      --weights clap-tiny=demo/teachers/clap-tiny.pt
  python -m pipeline.pseudolabel --manifest demo/manifest.parquet --store demo/features \\
      --teacher clip-tiny=demo/teachers/clip-tiny.pt --teacher clap-tiny=demo/teachers/clap-tiny.pt \\
      --calibrate val --out demo/labels
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.pseudolabel",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--store", required=True, type=Path, help="feature store with the teachers' features")
    made.add_argument("--prompts", type=Path, help="captions and thresholds; default manifests/<dataset>/prompts.tsv")
    made.add_argument(
        "--teacher",
        action="append",
        required=True,
        metavar="FEATURE[=WEIGHTS]",
        help="key or encoder:recipe, and the checkpoint that made it (default: pretrained, or the seed it names)",
    )
    made.add_argument("--rule", default="valor2023", choices=["valor2023", "lsld2023"], help="how scores become labels")
    made.add_argument(
        "--mask",
        action="append",
        choices=["video-label", "none"],
        help="once or twice; default both (LSLD: video-label)",
    )
    chosen = made.add_mutually_exclusive_group()
    chosen.add_argument("--thresholds", type=Path, metavar="FILE", help="calibrated earlier, with the same teachers")
    chosen.add_argument("--calibrate", metavar="SPLIT", help="take F-optimal thresholds on a split with dense labels")
    chosen.add_argument("--accept-thresholds", action="store_true", help="use the table's with another teacher")
    made.add_argument("--write-thresholds", type=Path, metavar="FILE", help="with --calibrate: keep them, with curves")
    made.add_argument("--out", required=True, type=Path, help="label store to make or to continue")
    made.add_argument("--device", default="cpu", help="where captions are encoded: cpu, cuda or cuda:N")
    made.add_argument("--job-clips", type=int, default=JOB_CLIPS, help="clips per block at most; fixed per store")
    made.add_argument("--max-failed", type=int, metavar="N", help="exit 3 if more clips than N have no labels")
    made.add_argument("--receipt", type=Path, help="JSON written last: keys, counts, evaluation")
    return made


def main(argv: list[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.write_thresholds and not arguments.calibrate:
        made.error("--write-thresholds needs --calibrate")
    if arguments.rule == "lsld2023":
        if (arguments.mask or ["video-label"]) != ["video-label"]:
            made.error("--rule lsld2023 chooses among the clip's own labels, so its mask is video-label")
        if arguments.thresholds or arguments.calibrate or arguments.accept_thresholds:
            made.error("--rule lsld2023 has no thresholds")
    with command("pseudolabel"):
        return _pseudolabel(arguments)


def _pseudolabel(arguments: argparse.Namespace) -> int:
    from pipeline.datasets.description import MANIFESTS, read_prompts
    from pipeline.device import use
    from pipeline.pseudolabelling.labeller import Labeller
    from pipeline.pseudolabelling.teachers import TextSide, teachers

    check_numbers(arguments, job_clips=1, max_failed=0)
    if arguments.store.resolve() in (arguments.out.resolve(), *arguments.out.resolve().parents):
        raise UsageError(f"--out {arguments.out} is the feature store or in it; labels need a folder of their own")
    named = dict(name.partition("=")[::2] for name in arguments.teacher)
    if len(named) < len(arguments.teacher):
        raise UsageError(f"--teacher {', '.join(arguments.teacher)}: give each feature once")
    use(arguments.device)
    manifest = Manifest.load(arguments.manifest).check()
    if not manifest.classes:
        raise ValueError(f"{arguments.manifest}: the dataset has no classes, so there is nothing to label")
    features = FeatureStore.open(arguments.store)
    prompts = read_prompts(arguments.prompts or MANIFESTS / manifest.dataset / "prompts.tsv", manifest.classes)
    found = teachers(features, named)
    masks = arguments.mask or (["video-label"] if arguments.rule == "lsld2023" else ["video-label", "none"])
    if "video-label" in masks and not any(clip.labels for clip in manifest.clips):
        raise ValueError(
            f"mask video-label: no clip of {manifest.dataset} has clip-level labels; pass --mask none to let all fire"
        )
    labeller = Labeller(manifest, features, arguments.out, arguments.job_clips)
    made: dict[str, dict[str, Any]] = {}
    curves: dict[str, Any] = {}
    for modality, (spec, choice) in found.items():
        text = TextSide(spec, choice or None, arguments.device)
        made[modality] = _modality(arguments, labeller, prompts, modality, text, masks, curves)
    if arguments.write_thresholds:
        from pipeline.pseudolabelling import thresholds

        thresholds.save(arguments.write_thresholds, curves)
    return _finish(arguments, manifest, made, masks, curves)


def _modality(
    arguments: argparse.Namespace, labeller: Any, prompts: Any, modality: str, text: Any, masks: list[str], curves: dict
) -> dict[str, Any]:
    """Scores and labels of one modality; returns their keys and settings."""
    from pipeline.pseudolabelling.captions import captions

    asked = captions(prompts, modality)
    lsld = arguments.rule == "lsld2023"
    scoring = labeller.scoring(asked, text, cosine=lsld)
    values, origin = ((), "none") if lsld else _thresholds(arguments, labeller, scoring, asked, curves)
    keys = {}
    for mask in masks:
        labelling = Labelling(scoring.spec.key, arguments.rule, values, mask, origin)
        keys[mask] = labeller.choose(scoring, labelling, asked, text) if lsld else labeller.label(scoring, labelling)
    if lsld and modality == "visual":  # LSLD's second step, done on export, compares segments with bare class names
        labeller.scoring(dataclasses.replace(asked, texts=asked.classes), text, cosine=True)
    log(f"{modality}: {scoring.teacher.name}, scale {scoring.scale:.4g}, thresholds: {origin}")
    return {
        "teacher": {"name": scoring.teacher.name, "key": scoring.teacher.key, "weights": scoring.teacher.weights},
        "scale": scoring.scale,
        "scores": scoring.spec.key,
        "labels": keys,
        "captions": dict(zip(asked.classes, asked.texts, strict=True)),
        "thresholds": dict(zip(asked.classes, values, strict=True)) if values else None,
        "origin": origin,
    }


def _thresholds(
    arguments: argparse.Namespace, labeller: Any, scoring: Scoring, asked: Any, curves: dict
) -> tuple[tuple[float, ...], str]:
    from pipeline.pseudolabelling import thresholds

    if arguments.thresholds:
        return thresholds.load(arguments.thresholds, scoring)
    if arguments.calibrate:
        if arguments.calibrate == "test":
            log(f"{scoring.modality}: thresholds are calibrated on the test split, so scores on it test nothing")
        found = labeller.calibrated(scoring, arguments.calibrate)
        if never := [name for name, entry in found.items() if not entry["positives"]]:
            log(f"{scoring.modality}: split {arguments.calibrate} never shows {', '.join(never)}: thresholds guessed")
        curves[scoring.modality] = thresholds.entry(scoring, arguments.calibrate, found)
        return tuple(entry["threshold"] for entry in found.values()), f"calibrated on split {arguments.calibrate}"
    values = thresholds.published(asked, scoring.teacher, arguments.accept_thresholds)
    return values, ", ".join(sorted(set(asked.sources)))


def _finish(
    arguments: argparse.Namespace, manifest: Manifest, made: dict[str, dict[str, Any]], masks: list[str], curves: dict
) -> int:
    """Count, evaluate, and write the receipt last."""
    from pipeline.pseudolabelling.evaluation import evaluate

    counts: dict[str, dict[str, int]] = {}
    failed: set[str] = set()
    scores = {}
    for mask in masks:
        keys = {modality: entry["labels"][mask] for modality, entry in made.items()}
        store = LabelStore.open(arguments.out, mask, keys)
        scores[mask] = evaluate(manifest, store)
        for modality in keys:
            outcomes = store.outcomes(modality)
            counts[modality] = {name: list(outcomes.values()).count(name) for name in sorted(set(outcomes.values()))}
            failed |= {clip for clip, outcome in outcomes.items() if outcome != "ok"}
    for modality, tally in counts.items():
        print(
            f"{modality}: " + ", ".join(f"{tally[name]} {name}" for name in sorted(tally, key=lambda n: (n != "ok", n)))
        )
        for outcome in sorted(set(tally) - {"ok"}):
            log(f"  {outcome}: {MEANING[outcome]}")
    for mask, splits in scores.items():
        for split, found in splits.items():
            for modality, values in found["f"].items():
                compared = ", ".join(f"{name} {value['segment']:.1f}" for name, value in values.items())
                print(f"{split}, mask {mask}, {modality}: segment F {compared}")
    if arguments.receipt:
        options = {"rule": arguments.rule, "masks": masks, "calibrate": arguments.calibrate}
        files = _files(arguments.out)
        record = receipt(
            "pseudolabel",
            options,
            dataset=manifest.dataset,
            manifest=manifest.digest,
            modalities=made,
            outcomes=counts,
            evaluation=scores,
            curves=curves,
            files=files,
        )
        write_json(arguments.receipt, record)
    if arguments.max_failed is not None and len(failed) > arguments.max_failed:
        log(f"pseudolabel: {len(failed)} clips lack labels, --max-failed allows {arguments.max_failed}")
        return TOO_MANY_FAILED
    return DONE


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of every committed file of the label store."""
    store = FeatureStore.open(folder)
    keys = store.keys()
    records = [store.commit(key, block) for key in keys for block, _ in store.blocks(key)]
    return {name: digest for record in records if record for name, digest in record["files"].items()}


if __name__ == "__main__":
    sys.exit(main())
