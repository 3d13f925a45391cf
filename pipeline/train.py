"""Stage: features and labels in, a trained network, its curves and its predictions out."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.allocator import keep_freed_memory
from pipeline.checkpoints import add_flags, take_up
from pipeline.manifest import Manifest
from pipeline.predictions import Predictions
from pipeline.recipes import TrainingRecipe, config_file, read
from pipeline.run import DONE, UsageError, check_numbers, command, log, receipt, sha256_of, write_json
from pipeline.schedules import misfit
from pipeline.store import FeatureStore

EXAMPLE = """\
OUT gets best-validation.pt and best-test.pt (weights), curves.json, predictions.npz and, last, train.json.  The same
command takes an interrupted training up again, to the same result.

example:
  python -m pipeline.train --manifest demo/manifest.parquet --store demo/features --model avel --setting supervised \\
      --seed 0 --out demo/train/avel-supervised-0
"""

#: Every stream that some network reads.
STREAMS = ("visual", "audio", "motion")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.train",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--store", required=True, type=Path, help="feature store, made by pipeline.extract")
    made.add_argument("--labels", type=Path, help="pseudo-label store, made by pipeline.pseudolabel")
    made.add_argument("--background", type=Path, metavar="DIR", help="AVE's background clips for weak training, HDF5")
    made.add_argument("--model", required=True, help="name of a network; an unknown one lists them all")
    made.add_argument("--setting", default="supervised", choices=["supervised", "weak"])
    made.add_argument("--seed", type=int, help="default: the published one")
    made.add_argument("--out", required=True, type=Path, help="folder of this training")
    made.add_argument("--config", type=Path, help="YAML; default: the model's own in workflows/config/models")
    for stream in STREAMS:
        made.add_argument(f"--{stream}", metavar="FEATURE", help=f"key or encoder:recipe[=WEIGHTS] of {stream!r}")
    made.add_argument("--epochs", type=int, help="instead of the configuration's; its schedule stays as it is")
    made.add_argument("--batch", type=int, help="instead of the configuration's")
    made.add_argument("--patience", type=int, help="stop after so many epochs without a better validation score")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="bf16: mixed precision")
    made.add_argument("--loader-workers", type=int, default=2, help="reading processes, where data outgrow memory")
    made.add_argument("--stream", action="store_true", help="read every batch from the store, whatever the memory")
    add_flags(made)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("train"):
        return _train(arguments)


def _usage(arguments: argparse.Namespace) -> type:
    """The class of the network, once the flags are known to fit it.

    Raises:
        UsageError: they do not, whatever the files say.
    """
    from pipeline.models import table

    check_numbers(arguments, epochs=1, batch=1, patience=1, loader_workers=0)
    try:
        cls = table.find(arguments.model, arguments.setting)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if cls.needs_labels and arguments.labels is None:
        raise UsageError(
            f"model {arguments.model} learns from pseudo-labels: give --labels; `python -m pipeline.pseudolabel` makes "
            "them"
        )
    if arguments.background and (arguments.setting != "weak" or set(cls.streams) != {"visual", "audio"}):
        raise UsageError("--background is for weak training of AVE models, which have one visual and one audio feature")
    if arguments.background and arguments.stream:
        raise UsageError("--background clips are held in memory; leave out --stream")
    if strange := [stream for stream in STREAMS if getattr(arguments, stream) and stream not in cls.streams]:
        flags = ", ".join(f"--{stream}" for stream in strange)
        raise UsageError(f"model {arguments.model} does not read {flags}; its streams are {', '.join(cls.streams)}")
    return cls


def _recipe(arguments: argparse.Namespace, dataset: str) -> tuple[TrainingRecipe, dict[str, str]]:
    """How to train, and the features that the file itself names: those that its published numbers are of."""
    path = arguments.config or config_file(arguments.model, dataset)
    log(f"settings from {path}")
    features = {stream: value for stream in STREAMS if (value := getattr(arguments, stream))}
    changes = {"epochs": arguments.epochs, "batch": arguments.batch, "patience": arguments.patience}
    recipe = read(path, arguments.setting, features=features, **changes)
    if recipe.model != arguments.model:
        raise ValueError(f"{path} configures model {recipe.model!r}, not {arguments.model!r}")
    return recipe, read(path, arguments.setting).features


def _train(arguments: argparse.Namespace) -> int:
    import torch

    from pipeline.device import use
    from pipeline.labels import LabelStore
    from pipeline.models.base import parameter_counts
    from pipeline.selection import select
    from pipeline.targets import background_clips, pseudo_targets, targets
    from pipeline.training import Training

    keep_freed_memory()
    cls = _usage(arguments)
    device = use(arguments.device)
    manifest = Manifest.load(arguments.manifest).check()
    recipe, published_with = _recipe(arguments, manifest.dataset)
    seed = recipe.seed if arguments.seed is None else arguments.seed
    store = FeatureStore.open(arguments.store)
    if missing := sorted(set(cls.streams) - set(recipe.features)):
        wanted = "; ".join(f"--{stream}: {cls.streams[stream]}" for stream in missing)
        raise ValueError(f"model {recipe.model} needs more features: {wanted}")
    features = {stream: recipe.features[stream] for stream in cls.streams}
    splits = tuple(split for split in ("train", "val", "test") if split != "test" or manifest.split("test"))
    pseudo = LabelStore.open(arguments.labels, mask=cls.label_mask) if cls.needs_labels else None
    labelled = splits if cls.label_inputs else ("train",)
    chosen = select(manifest, store, features, splits, pseudo, labelled)
    chosen.check_rows(tuple(cls.streams) if cls.per_segment is None else cls.per_segment)
    if not all(_is(store, key, features[name], published_with.get(name)) for name, key in chosen.keys.items()):
        recipe = dataclasses.replace(recipe, published={})
    labels = targets(manifest, cls.task, chosen.segments)
    evaluation = {split: {name: a[chosen.rows[split]] for name, a in labels.items()} for split in splits[1:]}
    if pseudo is not None:
        labels |= pseudo_targets(manifest, pseudo, chosen)
    extra = None
    if arguments.background:
        extra = background_clips(arguments.background, chosen.shapes, len(manifest.classes))
    facts = _facts(arguments, manifest, recipe, seed, store, chosen, cls, pseudo)
    facts["content"] = _content(arguments, manifest, store, chosen, pseudo, labelled)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    network = _network(cls, recipe, manifest, chosen, pseudo).to(device)
    feeds = _feeds(arguments, chosen, labels, device, extra)
    arguments.out.mkdir(parents=True, exist_ok=True)
    words = {"published", "source"}  # which change no number
    depends = facts | {"recipe": {name: value for name, value in facts["recipe"].items() if name not in words}}
    training = Training(network, recipe, feeds, evaluation, arguments.out, seed, depends, arguments.precision)
    # What does not fit is refused while an earlier result still counts.
    take_up(training.resume, training.forget, arguments.restart, arguments.stale)
    (arguments.out / "train.json").unlink(missing_ok=True)
    _announce(recipe, chosen, seed, parameter_counts(network)["total"])
    progress = training.run(lambda line: _report(line, recipe.epochs))
    predictions = _predictions(training, manifest, chosen, splits[1:], facts)
    predictions.save(arguments.out / "predictions.npz")
    write_json(arguments.out / "train.json", _receipt(arguments, recipe, facts, progress, network))
    for selection, best in progress.best.items():
        values = ", ".join(f"{split} {best[split]['main']:.2f}" for split in splits[1:])
        print(f"{selection}: epoch {best['epoch'] + 1}/{recipe.epochs}, {values}")
    return DONE


def _is(store: FeatureStore, key: str, asked: str, name: str | None) -> bool:
    """Whether a feature that was asked for is the one of that name, and not one of other weights."""
    if asked == name or [one for one in store if store.spec(one).name == name] == [key]:
        return True
    try:
        return store.key(f"{name}=pretrained") == key
    except (ValueError, OSError):
        return False


def _network(cls: type, recipe: TrainingRecipe, manifest: Manifest, chosen: Any, pseudo: Any) -> Any:
    """The network with fresh weights; what it needs to know beside the configuration comes from the data."""
    import torch

    from pipeline.models import table

    options = dict(recipe.network)
    if cls.wants_segments:
        options["segments"] = chosen.segments
    text = {}
    if hasattr(cls, "set_text") and options.get("plsim", True):
        text = {modality: torch.from_numpy(pseudo.text(modality)) for modality in ("audio", "visual")}
        options |= {f"text_{modality}": values.shape[1] for modality, values in text.items()}
    network = table.build(recipe.model, recipe.setting, chosen.shapes, len(manifest.classes), **options)
    if text:
        network.set_text(**text)
    return network


def _facts(
    arguments: argparse.Namespace, manifest: Manifest, recipe: TrainingRecipe, seed: int, store: FeatureStore,
    chosen: Any, cls: type, pseudo: Any,
) -> dict[str, Any]:  # fmt: skip
    """Everything that the result depends on."""
    return {
        "model": recipe.model,
        "setting": recipe.setting,
        "task": cls.task,
        "gate_is": cls.gate_is,
        "seed": seed,
        "dataset": manifest.dataset,
        "manifest": manifest.digest,
        "annotations": manifest.facts.get("annotations", {}),
        "features": {
            stream: {"key": key, "name": store.spec(key).name, "weights": store.spec(key).weights}
            for stream, key in chosen.keys.items()
        },
        "labels": pseudo.keys if pseudo is not None else None,
        "background": str(arguments.background.name) if arguments.background else None,
        "precision": arguments.precision,
        "recipe": recipe.to_dict(),
        "coverage": chosen.coverage(),
    }


def _content(
    arguments: argparse.Namespace, manifest: Manifest, store: FeatureStore, chosen: Any, pseudo: Any,
    labelled: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Hashes of the rows that are used: features and labels made again under the same key are others."""
    from pipeline.content import rows_digest
    from pipeline.targets import BACKGROUND_FILES

    def used(splits: Iterable[str]) -> list[str]:
        return [manifest.ids[row] for split in splits for row in chosen.rows[split]]

    found: dict[str, Any] = {
        "features": {stream: rows_digest(store, key, used(chosen.rows)) for stream, key in chosen.keys.items()}
    }
    if pseudo is not None:
        found["labels"] = {name: rows_digest(pseudo.store, key, used(labelled)) for name, key in pseudo.keys.items()}
    if arguments.background:
        found["background"] = {name: sha256_of(arguments.background / name) for name in BACKGROUND_FILES.values()}
    return found


def _feeds(
    arguments: argparse.Namespace, chosen: Any, labels: dict[str, np.ndarray], device: Any, extra: Any
) -> dict[str, Any]:
    from pipeline.batches import ClipDataset
    from pipeline.training import Feed

    datasets = {split: ClipDataset(arguments.store, chosen, split, labels) for split in chosen.rows}
    need = sum(dataset.item_bytes * len(dataset) for dataset in datasets.values())
    fits = not arguments.stream and need < 0.5 * _free_bytes(device)
    log(f"data: {need / 1e9:.2f} GB, " + (f"held on {device}" if fits else "read from the store batch by batch"))
    return {
        split: Feed(dataset, device, fits, arguments.loader_workers, extra if split == "train" else None)
        for split, dataset in datasets.items()
    }


def _free_bytes(device: Any) -> int:
    import torch

    from pipeline.memory import free_bytes

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_bytes()


def _announce(recipe: TrainingRecipe, chosen: Any, seed: int, parameters: int) -> None:
    log(f"{recipe.model}, {recipe.setting}, seed {seed}: {parameters:,} parameters, up to {recipe.epochs} epochs")
    if words := misfit(recipe.schedule, recipe.epochs):
        log(f"  {words}; `schedule` in --config changes it")
    if (late := recipe.network.get("contrast_from", 0)) >= recipe.epochs:
        log(f"  the contrast never begins: it would after {late} epochs; `contrast_from` in --config changes it")
    for split, counts in chosen.coverage().items():
        log(f"  {split}: {counts['used']} of {counts['clips']} clips")
        for reason, count in sorted(counts["excluded"].items()):
            log(f"    {count} without: {reason}")


def _report(line: dict[str, Any], epochs: int) -> None:
    scores = ", ".join(f"{split} {line[split]['main']:.2f}" for split in ("val", "test") if split in line)
    log(f"epoch {line['epoch'] + 1}/{epochs}: loss {line['loss']['total']:.4f}, {scores}, {line['train_s']:.2f} s")


def _predictions(training: Any, manifest: Manifest, chosen: Any, splits: tuple[str, ...], facts: dict) -> Predictions:
    arrays = {}
    for selection in training.progress.best:
        found = training.predict_best(selection)
        arrays[selection] = {
            name: np.concatenate([found[split][name] for split in splits]) for name in found[splits[0]]
        }  # fmt: skip
    rows = np.concatenate([chosen.rows[split] for split in splits])
    return Predictions(
        clips=np.array([manifest.ids[row] for row in rows]),
        splits=np.array([manifest.clips[row].split for row in rows]),
        arrays=arrays,
        facts=facts | {"best": {name: best["epoch"] for name, best in training.progress.best.items()}},
    )


def _receipt(
    arguments: argparse.Namespace, recipe: TrainingRecipe, facts: dict, progress: Any, network: Any
) -> dict[str, Any]:
    from pipeline.models.base import parameter_counts

    digest = hashlib.sha256((arguments.out / "predictions.npz").read_bytes()).hexdigest()
    return receipt(
        "train",
        facts,
        parameters=parameter_counts(network)["total"],
        epochs=progress.epoch,
        stopped_early=progress.stopped_early,
        best=progress.best,
        published=recipe.published,
        predictions={"file": "predictions.npz", "sha256": digest},
    )


if __name__ == "__main__":
    sys.exit(main())
