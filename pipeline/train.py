"""Stage: features and labels in, a trained network, its curves and its predictions out."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from typing import Any

import numpy as np

from pipeline import training_facts
from pipeline.allocator import keep_freed_memory
from pipeline.checkpoints import take_up
from pipeline.manifest import Manifest
from pipeline.predictions import Predictions
from pipeline.published import comparable
from pipeline.recipes import TrainingRecipe, config_file, read
from pipeline.run import DONE, command, log, receipt, write_json
from pipeline.schedules import misfit
from pipeline.store import FeatureStore
from pipeline.training_options import STREAMS, network_class, parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__).parse_args(argv)
    with command("train"):
        return _train(arguments)


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
    cls = network_class(arguments)
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
    if not comparable(cls.task, manifest.dataset, store, chosen.keys, features, published_with):
        recipe = dataclasses.replace(recipe, published={})
    labels = targets(manifest, cls.task, chosen.segments)
    evaluation = {split: {name: a[chosen.rows[split]] for name, a in labels.items()} for split in splits[1:]}
    if pseudo is not None:
        labels |= pseudo_targets(manifest, pseudo, chosen)
    extra = None
    if arguments.background:
        extra = background_clips(arguments.background, chosen.shapes, len(manifest.classes))
    facts = training_facts.facts(arguments, manifest, recipe, seed, store, chosen, cls, pseudo, labelled)
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
    _tell_shared_videos(manifest, chosen)
    progress = training.run(lambda line: _report(line, recipe.epochs))
    predictions = _predictions(training, manifest, chosen, splits[1:], facts)
    predictions.save(arguments.out / "predictions.npz")
    write_json(arguments.out / "train.json", _receipt(arguments, recipe, facts, progress, network))
    for selection, best in progress.best.items():
        values = ", ".join(f"{split} {best[split]['main']:.2f}" for split in splits[1:])
        print(f"{selection}: epoch {best['epoch'] + 1}/{recipe.epochs}, {values}")
    return DONE


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


def _tell_shared_videos(manifest: Manifest, chosen: Any) -> None:
    """AVE's published split shows some videos in several splits; they stay, as in every published number."""
    videos = {split: [manifest.clips[row].source_id for row in rows] for split, rows in chosen.rows.items()}
    trained = set(videos["train"])
    for split in [name for name in videos if name != "train"]:
        if shared := sum(video in trained for video in videos[split]):
            log(f"  {split}: {shared} clip{'s are of videos' if shared > 1 else ' is of a video'} that train shows too")


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
