"""How one model is trained: `workflows/config/models/<model>.yaml`, published hyper-parameters as data.

A file may name another as its `base`; its own values are laid over that one's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

_WHOLE = ("schedule", "optimizer", "published")
FOLDER = Path(__file__).resolve().parents[1] / "workflows" / "config" / "models"


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything about a training but the data and the seed.

    Args:
        model, setting: network and supervision.
        features: stream -> key or `encoder:recipe`.
        network: options of the network.
        optimizer: `name` (adam, adamw, sgd) and its arguments; `lr` among them.
        schedule: see `pipeline.schedules.rate`.
        epochs, batch: numbers.
        shuffle: new order every epoch; False keeps manifest order (AVEL).
        drop_last: leave out an incomplete last batch, if there is a complete one.
        clip_norm: largest gradient norm; None for no clipping.
        patience: stop after so many epochs without a better validation score; None never stops.
        ties: which of two epochs with the same score is best, `earlier` or `later`.
        seed: the published one; a command's --seed replaces it.
        published: numbers from the paper, for tables; {metric: value} or text.
        source: where the values come from.
    """

    model: str
    setting: str
    features: dict[str, str]
    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "adam", "lr": 1e-3})
    schedule: dict[str, Any] | None = None
    epochs: int = 100
    batch: int = 64
    shuffle: bool = True
    drop_last: bool = False
    clip_norm: float | None = None
    patience: int | None = None
    ties: str = "earlier"
    seed: int = 0
    published: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        problems = []
        if self.epochs < 1 or self.batch < 1:
            problems.append(f"epochs {self.epochs} and batch {self.batch} must be at least 1")
        if self.optimizer.get("name") not in ("adam", "adamw", "sgd"):
            problems.append(f"optimizer name {self.optimizer.get('name')!r} is none of adam, adamw, sgd")
        if not isinstance(self.optimizer.get("lr"), float | int):
            problems.append(f"optimizer lr {self.optimizer.get('lr')!r} is no number (YAML needs 1.0e-3, not 1e-3)")
        if self.ties not in ("earlier", "later"):
            problems.append(f"ties {self.ties!r} is neither earlier nor later")
        if problems:
            raise ValueError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def config_file(model: str, dataset: str) -> Path:
    """The model's own file: the small variant on the demo, the published values elsewhere."""
    name = f"{model}.yaml"
    small = FOLDER / "demo" / name
    return small if dataset == "demo" and small.exists() else FOLDER / name


def read(path: Path, setting: str, **changes: Any) -> TrainingRecipe:
    """The recipe of one setting; `changes` that are not None replace what the file says.

    Raises:
        ValueError: no such setting, unknown fields, values that cannot be; names the file.
        FileNotFoundError: no such file.
    """
    values = _merged(path)
    settings = values.pop("settings", {})
    if setting not in settings:
        raise ValueError(f"{path}: no setting {setting!r}; it has {', '.join(settings) or 'none'}")
    chosen = _laid_over(values, settings[setting] or {})
    for name, change in changes.items():
        if isinstance(change, dict):
            chosen[name] = chosen.get(name, {}) | change
        elif change is not None:
            chosen[name] = change
    known = {entry.name for entry in fields(TrainingRecipe)}
    if unknown := sorted(set(chosen) - known):
        raise ValueError(f"{path}: unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return TrainingRecipe(setting=setting, **chosen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, setting {setting}: {error}") from error


def digest(path: Path, setting: str) -> str:
    """Short hash of what a file says of one setting, with what its bases say; comments do not count.

    Raises:
        ValueError, FileNotFoundError: as `read`, of files that cannot be read.
    """
    values = _merged(path)
    said = [values, (values.pop("settings", None) or {}).get(setting)]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _merged(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    import yaml

    if path in seen:
        raise ValueError(f"{path}: `base` leads back to itself")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such training configuration; the models' own are in {FOLDER}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of fields, found {type(values).__name__}")
    if base := values.pop("base", None):
        return _laid_over(_merged((path.parent / base).resolve(), (*seen, path)), values)
    return values


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else, and what is in `_WHOLE`, is replaced."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict) and name not in _WHOLE
        merged[name] = _laid_over(merged[name], value) if both else value
    return merged
