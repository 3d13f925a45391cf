"""The loop of a fine-tuning: epochs, retrieval on a validation split, checkpoints that resume to the same trajectory.

Every draw is seeded by (seed, epoch, clip), so nothing but epoch, weights and optimiser has to be kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import checkpoints
from pipeline.finetuning import ranks
from pipeline.finetuning.frames import batches
from pipeline.finetuning.losses import info_nce
from pipeline.finetuning.pair import Pair, backward
from pipeline.finetuning.recipe import FinetuneRecipe
from pipeline.finetuning.sides import Side
from pipeline.metrics.retrieval import recall_at
from pipeline.optimizers import optimizer
from pipeline.run import write_json, write_torch
from pipeline.schedules import rate


@dataclass
class Progress:
    """What a checkpoint keeps beside the weights."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    stale: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    stopped_early: bool = False


class Tuning:
    """One fine-tuning in a folder.

    Args:
        pair: on its device.
        train, validation: clips; validation may be None.
        folder: gets checkpoint.pt, curves.json and best.pt.
        facts: everything that the result depends on, as JSON values; a checkpoint of others is refused.
        rank, world: of this process.
    """

    def __init__(
        self,
        pair: Pair,
        recipe: FinetuneRecipe,
        train: Side,
        validation: Side | None,
        folder: Path,
        seed: int,
        facts: dict[str, Any],
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pair, self.recipe, self.train, self.validation = pair, recipe, train, validation
        self.folder, self.seed, self.facts, self.workers = folder, seed, facts, workers
        self.rank, self.world = rank, world
        self.device = next(pair.parameters()).device
        self.trained = [parameter for parameter in pair.parameters() if parameter.requires_grad]
        self.optimizer = optimizer(recipe.optimizer, self.trained)
        self.progress = Progress()
        if len(train) < 2:
            raise ValueError(f"only {len(train)} clip can take part; the contrast needs at least two")

    def run(self, report: Callable[[dict[str, Any]], None]) -> Progress:
        """Train to the end, from the start or from what `resume` took up."""
        if not self.progress.history and self.validation is not None:
            before = self.examine(self.validation)
            self.progress.history.append({"epoch": 0, "loss": None, "val": before})
            self._keep_best(before, 0)
        while self.progress.epoch < self.recipe.epochs and not self.progress.stopped_early:
            line = self._epoch()
            self.progress.history.append(line)
            self._checkpoint()
            if self.rank == 0:
                report(line)
        return self.progress

    # ---- one epoch ----------------------------------------------------------------------------------------------

    def groups(self, epoch: int) -> list[list[int]]:
        """Clips of every batch of an epoch, over all processes; an incomplete last batch is left out, if not alone."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train))
        size = self.recipe.batch
        made = [order[start : start + size].tolist() for start in range(0, len(order), size)]
        return made[:-1] if len(made) > 1 and len(made[-1]) < size else made

    def _loss(self, visual: Tensor, audio: Tensor, videos: Tensor) -> Tensor:
        masked = videos if self.recipe.mask_same_video else None
        return info_nce(visual, audio, self.recipe.temperature, self.recipe.loss, masked)

    def _epoch(self) -> dict[str, Any]:
        progress, recipe = self.progress, self.recipe
        epoch, started_s = progress.epoch, time.monotonic()
        torch.manual_seed(int(np.random.default_rng([self.seed, epoch, self.rank]).integers(2**62)))
        self.pair.train()
        groups = self.groups(epoch)
        own = [group[self.rank :: self.world] for group in groups]
        losses, skipped, waited_s = [], 0, 0.0
        stream = batches(self.train.frames, epoch, own, self.workers)
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(len(groups)):
            asked_s = time.monotonic()
            places, pictures, refused = next(stream)
            waited_s += time.monotonic() - asked_s
            progress.refused.update({self.train.frames.clips[place].id: why for place, why in refused.items()})
            counts, _ = ranks.gather(torch.tensor([len(places)], device=self.device))
            if int(counts.sum()) < 2 or int(counts.min()) == 0:
                skipped += 1  # no negatives, or a process without a clip
            else:
                loss = backward(
                    self.pair,
                    pictures.to(self.device),
                    self.train.audio[places].to(self.device),
                    self.train.videos[places].to(self.device),
                    self._loss,
                    recipe.chunk,
                    1.0 / min(recipe.accumulate, len(groups) - number // recipe.accumulate * recipe.accumulate),
                )
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss is {loss} in epoch {epoch + 1}, batch {number + 1}")
                losses.append(loss)
            if (number + 1) % recipe.accumulate == 0 or number + 1 == len(groups):
                self._step(epoch)
        if not losses:
            raise ValueError(
                f"no batch of epoch {epoch} has two readable clips: {len(progress.refused)} clips were refused "
                f"({', '.join(sorted(set(progress.refused.values())))})"
            )
        ranks.average_buffers(self.pair.network)
        if not all(bool(parameter.isfinite().all()) for parameter in self.trained):
            raise self._diverged(f"weights are NaN or infinite after epoch {epoch + 1}")
        progress.epoch += 1
        line = {
            "epoch": progress.epoch,
            "loss": float(np.mean(losses)),
            "lr": self.optimizer.param_groups[0]["lr"],
            "waited_s": round(waited_s, 3),
        }
        if skipped:
            line["skipped"] = skipped
        line["train_s"] = round(time.monotonic() - started_s, 3)
        if self.validation is not None:
            line["val"] = self.examine(self.validation)
            self._keep_best(line["val"], progress.epoch)
        return line

    def _diverged(self, what: str) -> ValueError:
        return ValueError(
            f"{what}. A lower learning rate (optimizer: lr) or --precision fp32 may help; the last checkpoint is still "
            "there"
        )

    def _step(self, epoch: int) -> None:
        ranks.sum_gradients(self.trained)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe.schedule, self.recipe.optimizer["lr"], epoch, self.progress.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1

    # ---- retrieval ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def vectors(self, side: Side) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """(n, C) pooled visual vectors, (n, width) visual and audio vectors, and the places of the readable clips."""
        self.pair.eval()
        size = self.recipe.chunk
        groups = [list(range(start, min(start + size, len(side)))) for start in range(0, len(side), size)]
        pooled, kept = [], []
        for places, pictures, refused in batches(side.frames, 0, groups, self.workers):
            self.progress.refused.update({side.frames.clips[place].id: why for place, why in refused.items()})
            if places:
                pooled.append(self.pair.pooled(pictures.to(self.device)))
                kept += places
        if not kept:
            raise ValueError("no clip of the validation split can be read")
        stacked = torch.cat(pooled)
        seen = torch.nn.functional.normalize(self.pair.visual(stacked), dim=-1)
        return stacked, seen, self.pair.hear(side.audio[kept].to(self.device)), kept

    def examine(self, side: Side) -> dict[str, dict[str, float]]:
        """R@1 and R@5 of pictures finding their sound and of sounds finding their pictures; the same on every rank."""
        found = [0.0] * 4
        if self.rank == 0:
            _, seen, heard, kept = self.vectors(side)
            similarity = (seen @ heard.T).cpu().numpy()
            videos = side.videos[kept].numpy()
            same = videos[:, None] == videos[None, :]
            visual, audio = recall_at(similarity, same), recall_at(similarity.T, same.T)
            found = [visual["R@1"], visual["R@5"], audio["R@1"], audio["R@5"]]
        found = ranks.agree(found)
        names = ("R@1", "R@5")
        return {"visual to audio": dict(zip(names, found[:2], strict=True)),
                "audio to visual": dict(zip(names, found[2:], strict=True))}  # fmt: skip

    def _keep_best(self, retrieval: dict[str, dict[str, float]], epoch: int) -> None:
        """Remember the weights if the sum of both R@1, then of both R@5, is the best so far; the earlier wins a tie."""
        progress = self.progress
        value = [sum(found[name] for found in retrieval.values()) for name in ("R@1", "R@5")]
        if not progress.best or value > progress.best["value"]:
            progress.best, progress.stale = {"epoch": epoch, "value": value, "retrieval": retrieval}, 0
            if self.rank == 0:
                write_torch(self.folder / "best.pt", self.pair.state_dict())
        else:
            progress.stale += 1
            if self.recipe.patience is not None and progress.stale >= self.recipe.patience:
                progress.stopped_early = True

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        if self.rank == 0:
            state = {
                "pair": self.pair.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress),
            }
            checkpoints.save(self.folder / "checkpoint.pt", self.facts, state)
            write_json(self.folder / "curves.json", self.progress.history)

    def resume(self) -> bool:
        """Take up the folder's checkpoint.  Returns whether there was one.

        Raises:
            Stale: it is damaged, or of a fine-tuning with other data or settings.
        """
        state = checkpoints.load(self.folder / "checkpoint.pt", self.facts)
        if state is None:
            return False
        self.pair.load_state_dict(state["pair"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        return True

    def forget(self) -> None:
        """Remove what an earlier fine-tuning left in the folder."""
        for name in ("finetune.json", "checkpoint.pt", "best.pt", "curves.json") if self.rank == 0 else ():
            (self.folder / name).unlink(missing_ok=True)

    def load_best(self) -> None:
        """The best weights, where there is a validation split; else the last ones stay."""
        if self.validation is not None:
            self.pair.load_state_dict(torch.load(self.folder / "best.pt", map_location="cpu", weights_only=True))
