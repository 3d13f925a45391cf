"""How an encoder is fine-tuned: `workflows/config/finetune/<name>.yaml`, published values as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "workflows" / "config" / "finetune"


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything about a fine-tuning but the data, the encoders and the seed.

    Args:
        loss: `one-sided` or `symmetric`.
        temperature: of the cosines, fixed.
        projection: width of the two projections, without bias.
        tune: `all`, or `projections` for a frozen encoder: the honest "before" of a comparison.
        norms: `train` (batch statistics, as published) or `frozen`.
        mask_same_video: other clips of the same source video are no negatives (the published code counts them).
        batch, epochs: clips per step over all processes; passes.
        chunk: clips that go through the encoder at once; smaller than the batch, gradients are cached.
        accumulate: batches whose gradients are averaged for one step.
        optimizer: `name` (sgd, adam, adamw) and its arguments.
        schedule: see `pipeline.schedules.rate`.
        frames: pictures per clip: one out of each equal part of it.
        resample: `epoch` draws new frames every epoch, `once` keeps the first draw (as published).
        splits: whose clips train.
        validation: split of the retrieval test, None for none.
        patience: stop after so many epochs without a better retrieval; None never stops.
        source: where the values come from.
    """

    loss: str = "symmetric"
    temperature: float = 0.2
    projection: int = 128
    tune: str = "all"
    norms: str = "frozen"
    mask_same_video: bool = True
    batch: int = 64
    epochs: int = 50
    chunk: int = 8
    accumulate: int = 1
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "sgd", "lr": 1e-3, "momentum": 0.9})
    schedule: dict[str, Any] | None = None
    frames: int = 10
    resample: str = "epoch"
    splits: tuple[str, ...] = ("train",)
    validation: str | None = "val"
    patience: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        from pipeline.finetuning.losses import SIDES  # it imports torch, which a look at the files can do without

        object.__setattr__(self, "splits", tuple(self.splits))
        choices = {
            "loss": SIDES, "tune": ("all", "projections"), "norms": ("train", "frozen"), "resample": ("epoch", "once"),
        }  # fmt: skip
        problems = [
            f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        if self.validation in self.splits:
            problems.append(f"split {self.validation} both trains and validates, so the best epoch would be the last")
        if self.batch < 2:
            problems.append(f"batch {self.batch}: InfoNCE needs at least two clips, the others are the negatives")
        for name in ("epochs", "chunk", "accumulate", "frames", "projection"):
            if getattr(self, name) < 1:
                problems.append(f"{name} is {getattr(self, name)}, at least 1 is needed")
        if not self.temperature > 0:
            problems.append(f"temperature {self.temperature} must be above 0")
        if self.optimizer.get("name") not in ("adam", "adamw", "sgd"):
            problems.append(f"optimizer name {self.optimizer.get('name')!r} is none of adam, adamw, sgd")
        if not isinstance(self.optimizer.get("lr"), float | int):
            problems.append(f"optimizer lr {self.optimizer.get('lr')!r} is no number (YAML needs 1.0e-3, not 1e-3)")
        if problems:
            raise ValueError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"splits": list(self.splits)}


def file_of(name: str) -> Path:
    """The file that a name stands for: one of ours, or a YAML file by its path."""
    return FOLDER / f"{name}.yaml" if "/" not in name and not name.endswith(".yaml") else Path(name)


def read(name: str, **changes: Any) -> FinetuneRecipe:
    """A recipe by name or path; changes that are not None replace what the file says.

    Raises:
        ValueError: unknown fields, values that cannot be; names the file.
        FileNotFoundError: no such recipe; lists those there are.
    """
    import yaml

    path = file_of(name)
    if not path.is_file():
        have = ", ".join(sorted(entry.stem for entry in FOLDER.glob("*.yaml")))
        raise FileNotFoundError(f"{path}: no such fine-tuning recipe; there are {have}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        chosen = values | {name: value for name, value in changes.items() if value is not None}
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path}: not YAML fields ({error})") from error
    known = {entry.name for entry in fields(FinetuneRecipe)}
    if unknown := sorted(set(chosen) - known):
        raise ValueError(f"{path}: unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return FinetuneRecipe(**chosen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
