"""The training loop of every model: epochs, selection of the best ones, checkpoints that resume exactly.

It knows tensors and a network, and neither stores nor manifests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import checkpoints
from pipeline.models.base import Model
from pipeline.optimizers import optimizer
from pipeline.predictions import SELECTIONS, measure
from pipeline.recipes import TrainingRecipe
from pipeline.run import log, write_json, write_torch
from pipeline.schedules import rate

_REMEDY = "A lower learning rate (optimizer: lr) or gradient clipping (clip_norm) may help; the last checkpoint stays"


class Feed:
    """Batches of one split, from memory where the split fits, else through loader workers.

    Both give the same batches in the same order, and neither touches the global random state.

    Args:
        dataset: map-style, a list of indices gives a dict of stacked tensors; with `in_memory(device)`.
        in_memory: hold everything on the device.
        workers: loader processes otherwise.
        extra: more items behind those of the dataset, name -> (n, ...); only in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        in_memory: bool,
        workers: int = 0,
        extra: dict[str, Tensor] | None = None,
    ) -> None:
        self.dataset, self.device, self.workers = dataset, device, workers
        self.held = dataset.in_memory(device) if in_memory else None
        self.extra = 0
        if extra:
            if self.held is None:
                raise ValueError(
                    "additional clips need the data in memory; leave out --stream, or use a larger machine"
                )
            self.extra = len(next(iter(extra.values())))
            self.held = {name: torch.cat([values, extra[name].to(device)]) for name, values in self.held.items()}

    def __len__(self) -> int:
        return len(self.dataset) + self.extra

    def batches(self, order: Tensor, size: int) -> Iterator[dict[str, Tensor]]:
        """Batches of `size` items (the last one may be smaller), on the device."""
        chunks = list(order.split(size))
        if self.held is not None:
            for chunk in chunks:
                chosen = chunk.to(self.device)
                yield {name: values[chosen] for name, values in self.held.items()}
            return
        loader = DataLoader(
            self.dataset,
            batch_size=None,  # the dataset reads whole batches, straight into the memory that they are handed over in
            sampler=[chunk.tolist() for chunk in chunks],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # a loader draws a seed; not from the network's random numbers
        )
        for batch in loader:
            yield {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}


@dataclass
class Progress:
    """What a training knows beside its tensors; goes into every checkpoint."""

    epoch: int = 0
    iteration: int = 0
    stale: int = 0
    best: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: bool = False


def _emulates_bf16(device: torch.device) -> bool:
    """Whether a CPU has no arithmetic in bf16 of its own."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Training:
    """One training of one network.

    Args:
        network: with fresh weights.
        recipe: hyper-parameters.
        feeds: split -> batches; `train`, `val` and, if there is one, `test`.
        truth: split -> target arrays, for the evaluation splits.
        folder: for checkpoints and curves.
        facts: everything that the trajectory depends on, as JSON values; a checkpoint of others is refused.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(
        self,
        network: Model,
        recipe: TrainingRecipe,
        feeds: dict[str, Feed],
        truth: dict[str, dict[str, np.ndarray]],
        folder: Path,
        seed: int,
        facts: dict[str, Any],
        precision: str = "fp32",
    ) -> None:
        self.network, self.recipe, self.feeds, self.truth = network, recipe, feeds, truth
        self.folder, self.seed, self.facts, self.precision = folder, seed, facts, precision
        self.device = next(network.parameters()).device
        self.optimizer = optimizer(recipe.optimizer, network.parameters())
        self.progress = Progress()
        self.inputs = (*network.streams, *network.label_inputs)
        if self.precision != "fp32" and _emulates_bf16(self.device):
            log(f"this processor does not compute in {self.precision}: expect it to take longer than fp32")

    # ---- running ------------------------------------------------------------------------------------------------

    def run(self, report: Callable[[dict[str, Any]], None] = lambda line: None) -> Progress:
        """Train to the end, from the start or from what `resume` took up.

        Args:
            report: called with the line of every finished epoch.
        """
        while self.progress.epoch < self.recipe.epochs and not self.progress.stopped_early:
            started_s = time.monotonic()
            terms, lr = self._epoch()
            trained_s = time.monotonic() - started_s
            line = {"epoch": self.progress.epoch, "lr": lr, "loss": terms, "train_s": round(trained_s, 4)}
            for split in self.truth:
                line[split] = measure(
                    self.network.task, self.predict(split), self.truth[split], self.network.gate_is
                )  # fmt: skip
            if watched := self.network.watched():
                line["watched"] = watched
            self.progress.history.append(line)
            self._select(line)
            self.progress.epoch += 1
            self._checkpoint()
            report(line)
        return self.progress

    def _epoch(self) -> tuple[dict[str, float], float]:
        """One pass over the training split.  Returns mean loss terms, and the last learning rate."""
        recipe, progress, feed = self.recipe, self.progress, self.feeds["train"]
        self.network.train()
        self.network.begin_epoch(progress.epoch)
        order = torch.arange(len(feed))
        if recipe.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + progress.epoch)
            order = torch.randperm(len(feed), generator=generator)
        if recipe.drop_last and len(order) >= recipe.batch:
            order = order[: len(order) // recipe.batch * recipe.batch]
        totals: dict[str, float] = {}
        lr = 0.0
        for number, batch in enumerate(feed.batches(order, recipe.batch), start=1):
            lr = rate(recipe.schedule, recipe.optimizer["lr"], progress.epoch, progress.iteration)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                outputs = self.network(**{name: batch[name] for name in self.inputs})
            outputs = {name: values.float() for name, values in outputs.items()}
            terms = self.network.losses(outputs, batch, progress.epoch)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                found = ", ".join(f"{name} {float(value.detach()):g}" for name, value in terms.items())
                raise ValueError(
                    f"the loss is not finite in epoch {progress.epoch + 1}, batch {number}: {found}. {_REMEDY}"
                )
            loss.backward()
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
            self.optimizer.step()
            progress.iteration += 1
            for name, value in (terms | {"total": loss}).items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) * len(next(iter(batch.values())))
        return {name: total / len(order) for name, total in totals.items()}, lr

    def predict(self, split: str) -> dict[str, np.ndarray]:
        """Predictions of a whole split with the weights as they are.

        Raises:
            ValueError: one is NaN or infinite.
        """
        self.network.eval()
        parts: dict[str, list[np.ndarray]] = {}
        feed = self.feeds[split]
        with torch.no_grad(), self._autocast():
            for batch in feed.batches(torch.arange(len(feed)), max(self.recipe.batch, 16)):
                outputs = self.network(**{name: batch[name] for name in self.inputs})
                for name, values in self.network.predictions(outputs).items():
                    parts.setdefault(name, []).append(values.float().cpu().numpy())
        found = {name: np.concatenate(values) for name, values in parts.items()}
        if bad := [name for name, values in found.items() if not np.isfinite(values).all()]:
            raise ValueError(
                f"predictions of split {split} are not finite after epoch {self.progress.epoch + 1}: {', '.join(bad)}. "
                f"{_REMEDY}"
            )
        return found

    def predict_best(self, selection: str) -> dict[str, dict[str, np.ndarray]]:
        """Predictions of all evaluation splits with the weights of a selected epoch."""
        weights = torch.load(self.folder / f"{selection}.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(weights)
        self.network.begin_epoch(self.progress.best[selection]["epoch"])
        return {split: self.predict(split) for split in self.truth}

    def _autocast(self) -> contextlib.AbstractContextManager:
        stack = contextlib.ExitStack()
        if self.precision != "fp32":
            stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            if _emulates_bf16(self.device):  # oneDNN has no recurrent layers for it then, PyTorch's own are slow
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        return stack

    # ---- selection and checkpoints ------------------------------------------------------------------------------

    def _select(self, line: dict[str, Any]) -> None:
        """Keep the weights of the best epoch by validation and by test score."""
        progress = self.progress
        for selection, split in zip(SELECTIONS, ("val", "test"), strict=True):
            if split not in line:
                continue
            value, best = line[split]["main"], progress.best.get(selection)
            better = best is None or value > best[split]["main"]
            tie = best is not None and value == best[split]["main"] and self.recipe.ties == "later"
            if better or tie:
                progress.best[selection] = {"epoch": line["epoch"]} | {name: line[name] for name in self.truth}
                write_torch(self.folder / f"{selection}.pt", self.network.state_dict())
            if split == "val":
                progress.stale = 0 if better else progress.stale + 1
        if self.recipe.patience is not None and progress.stale >= self.recipe.patience:
            progress.stopped_early = True

    def _checkpoint(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "progress": vars(self.progress),
        }
        checkpoints.save(self.folder / "checkpoint.pt", self.facts, state)
        lines = self.progress.history
        write_json(self.folder / "curves.json", lines)

    def resume(self) -> bool:
        """Take up the folder's checkpoint.  Returns whether there was one.

        Raises:
            Stale: it is damaged, or of a training with other data or settings.
        """
        state = checkpoints.load(self.folder / "checkpoint.pt", self.facts)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.progress = Progress(**state["progress"])
        return True

    def forget(self) -> None:
        """Remove what an earlier training left in the folder."""
        for name in ("train.json", "checkpoint.pt", "curves.json", *(f"{selection}.pt" for selection in SELECTIONS)):
            (self.folder / name).unlink(missing_ok=True)
