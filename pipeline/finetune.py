"""Stage: clips and frozen audio features in, weights of a visual encoder tuned to the sounds it goes with out."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.allocator import keep_freed_memory
from pipeline.checkpoints import add_flags, take_up
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.run import DONE, check_numbers, command, log, receipt, sha256_of, write_json
from pipeline.schedules import misfit
from pipeline.store import FeatureStore

EXAMPLE = """\
OUT gets <encoder>.safetensors for `extract --weights <encoder>=PATH` (features under a new key; the old ones stay),
weights.json with its SHA-256, curves.json and, last, finetune.json.  The same command takes an interrupted run up
again, to the same result.  Several GPUs: torchrun --nproc-per-node N -m pipeline.finetune ... (the batch is the total).

example:
  python -m pipeline.extract --manifest demo/manifest.parquet --media demo/media --store demo/features \\
      --encoders vggish --weights random:0
  python -m pipeline.finetune --manifest demo/manifest.parquet --media demo/media --store demo/features \\
      --visual clip-tiny --visual-weights demo/teachers/clip-tiny.pt --audio vggish --recipe demo --seed 0 \\
      --out demo/finetune/clip-tiny-0
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.finetune",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--media", required=True, type=Path, help="folder of clips")
    made.add_argument("--store", required=True, type=Path, help="feature store with the audio features")
    made.add_argument("--visual", required=True, metavar="ENCODER", help="encoder or encoder:recipe to tune")
    made.add_argument(
        "--visual-weights", default="pretrained", metavar="CHOICE", help="pretrained, random:SEED or PATH"
    )
    made.add_argument("--audio", required=True, metavar="FEATURE", help="key or encoder:recipe[=WEIGHTS] of the store")
    made.add_argument("--recipe", default="clave", help="name in workflows/config/finetune, or a YAML file")
    made.add_argument("--loss", choices=["one-sided", "symmetric"], help="instead of the recipe's")
    made.add_argument("--tune", choices=["all", "projections"], help="projections: a frozen encoder, for comparison")
    made.add_argument("--epochs", type=int, help="instead of the recipe's; its schedule stays as it is")
    made.add_argument("--batch", type=int, help="clips per step over all processes, instead of the recipe's")
    made.add_argument("--chunk", type=int, help="clips through the encoder at once, instead of the recipe's")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", required=True, type=Path, help="folder of this fine-tuning")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="bf16: mixed precision")
    made.add_argument("--loader-workers", type=int, default=0, help="decoding processes")
    add_flags(made)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("finetune"):
        from pipeline.finetuning import ranks

        try:
            return _finetune(arguments)
        finally:
            ranks.stop()


def _finetune(arguments: argparse.Namespace) -> int:
    import torch

    from pipeline.content import media_digest, rows_digest
    from pipeline.finetuning import ranks
    from pipeline.finetuning.pair import fresh
    from pipeline.finetuning.recipe import read
    from pipeline.finetuning.sides import side
    from pipeline.finetuning.tuning import Tuning

    keep_freed_memory()
    check_numbers(arguments, epochs=1, batch=2, chunk=1, loader_workers=0)
    if not arguments.media.is_dir():
        raise FileNotFoundError(f"--media {arguments.media}: no such folder")
    changes = {name: getattr(arguments, name) for name in ("loss", "tune", "epochs", "batch", "chunk")}
    recipe = read(arguments.recipe, **changes)
    manifest = Manifest.load(arguments.manifest).check()
    store = FeatureStore.open(arguments.store)
    key = store.key(arguments.audio)
    if store.spec(key).modality != "audio":
        raise ValueError(f"--audio {arguments.audio}: {key} is a {store.spec(key).modality} feature")
    rank, world, device = ranks.start(arguments.device)
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    encoder = _encoder(arguments, device)
    pictures = {"media": arguments.media, "spec": encoder.spec, "count": recipe.frames, "seed": arguments.seed}
    train, excluded = side(manifest, store, key, recipe.splits, once=recipe.resample == "once", **pictures)
    validation = None
    if recipe.validation:
        validation, more = side(manifest, store, key, (recipe.validation,), once=True, **pictures)
        excluded += more
    facts = _facts(arguments, manifest, store, key, encoder, recipe, train, validation, excluded)
    clips = [clip for side in (train, validation) if side for clip in side.frames.clips]
    facts["content"] = {
        "audio": rows_digest(store, key, [clip.id for clip in clips]),
        "media": media_digest(clips, arguments.media),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    pair = fresh(encoder, train.audio.shape[1], recipe, arguments.seed, arguments.precision).to(device)
    tuning = Tuning(
        pair,
        recipe,
        train,
        validation,
        arguments.out,
        arguments.seed,
        facts,
        arguments.loader_workers,
        rank,
        world,
    )
    # What does not fit is refused while an earlier result still counts.
    take_up(tuning.resume, tuning.forget, arguments.restart, arguments.stale)
    if rank == 0:
        (arguments.out / "finetune.json").unlink(missing_ok=True)
        if words := misfit(recipe.schedule, recipe.epochs):
            log(f"{words}; `schedule` in the recipe changes it")
        _announce(facts, sum(parameter.numel() for parameter in tuning.trained))
    progress = tuning.run(lambda line: _report(line, recipe.epochs))
    tuning.load_best()
    if rank == 0:
        _write(arguments, encoder, pair, facts, progress)
    return DONE


def _encoder(arguments: argparse.Namespace, device: Any) -> Any:
    """The visual encoder, ready to be trained.

    Raises:
        ValueError: an encoder of sound, or one that does not encode single frames.
    """
    from extractors.base import load
    from extractors.frame_encoder import FrameEncoder

    encoder = load(arguments.visual, arguments.visual_weights, device)
    if not isinstance(encoder, FrameEncoder) or type(encoder).encode_rows is not FrameEncoder.encode_rows:
        raise ValueError(
            f"--visual {arguments.visual}: only encoders of single frames can be tuned, such as resnet50, vgg19-bn or "
            "clip-b32"
        )
    return encoder


def _facts(
    arguments: argparse.Namespace, manifest: Manifest, store: FeatureStore, key: str, encoder: Any, recipe: Any,
    train: Any, validation: Any, excluded: Counter,
) -> dict[str, Any]:  # fmt: skip
    """Everything that the result depends on."""
    return {
        "visual": encoder.spec.name,
        "weights": encoder.spec.weights,
        "audio": {"key": key, "name": store.spec(key).name, "weights": store.spec(key).weights},
        "dataset": manifest.dataset,
        "manifest": manifest.digest,
        "recipe": recipe.to_dict(),
        "seed": arguments.seed,
        "precision": arguments.precision,
        "world": int(os.environ.get("WORLD_SIZE", "1")),
        "clips": {"train": len(train), "validation": len(validation) if validation else 0, "excluded": dict(excluded)},
    }


def _announce(facts: dict[str, Any], parameters: int) -> None:
    clips = facts["clips"]
    log(
        f"{facts['visual']} against {facts['audio']['name']}, seed {facts['seed']}: {parameters:,} trained parameters, "
        f"{clips['train']} clips, {clips['validation']} for validation, {facts['recipe']['loss']} loss"
    )
    for reason, count in sorted(clips["excluded"].items()):
        log(f"  {count} clips without {reason} ({MEANING[reason.removeprefix('audio: ')]})")


def _report(line: dict[str, Any], epochs: int) -> None:
    found = "".join(
        f", {way} R@1 {values['R@1']:.1f} R@5 {values['R@5']:.1f}" for way, values in line.get("val", {}).items()
    )
    log(f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.4f}{found}, {line['train_s']:.1f} s")


def _write(arguments: argparse.Namespace, encoder: Any, pair: Any, facts: dict[str, Any], progress: Any) -> None:
    """The checkpoint in the encoder's key format, its record, and the receipt last."""
    from safetensors.torch import save

    name = encoder.spec.encoder
    path = arguments.out / f"{name}.safetensors"
    state = {key: value.detach().cpu().contiguous().clone() for key, value in pair.network.state_dict().items()}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(save(state))
    os.replace(partial, path)
    digest = sha256_of(path)
    weights = {
        "name": f"{name}-tuned-{facts['dataset']}-seed{facts['seed']}",
        "file": path.name,
        "url": None,
        "page": "made by pipeline.finetune; finetune.json beside it says how",
        "size_bytes": path.stat().st_size,
        "sha256": digest,
        "licence_code": "unknown",
        "licence_weights": "unknown",
        "member": None,
        "note": f"From {facts['weights']}, tuned against {facts['audio']['key']}.",
    }
    write_json(arguments.out / "weights.json", weights)
    refused = dict(Counter(progress.refused.values()))
    write_json(
        arguments.out / "finetune.json",
        receipt(
            "finetune",
            facts,
            epochs=progress.epoch,
            stopped_early=progress.stopped_early,
            best=progress.best,
            before=progress.history[0].get("val"),
            refused={"clips": progress.refused, "counts": refused},
            history=[{k: v for k, v in line.items() if k not in ("train_s", "waited_s")} for line in progress.history],
            weights=weights,
        ),
    )
    for outcome, count in sorted(refused.items()):
        log(f"  {count} clips could not be read: {outcome}, {MEANING[outcome]}")
    chosen = f"epoch {progress.best['epoch']}" if progress.best else f"epoch {progress.epoch}, the last"
    print(f"{path}: {chosen}, sha256 {digest[:16]}...")
    for way, values in (progress.best.get("retrieval") or {}).items():
        print(f"  {way}: " + ", ".join(f"{metric} {value:.1f}" for metric, value in values.items()))


if __name__ == "__main__":
    sys.exit(main())
