"""What a configuration will cost: jobs, rows, bytes and hours, from a manifest's lengths and measured throughputs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from extractors.recipes import recipe
from extractors.spec import FeatureSpec
from pipeline.configuration import exports, read_yaml
from pipeline.layout import plan_for
from pipeline.planning import ROOT, clip_count

#: Seconds of every clip, where a dataset's clips are all as long; others need a manifest.
CLIP_S = {"ave": 10.0, "llp": 10.0, "demo": 10.0}
THROUGHPUT = ROOT / "workflows" / "config" / "throughput.yaml"
# A stored row's window is two float64; each chunk of values has an index entry of 16 bytes and a checksum of 4.
_WINDOW_BYTES, _CHUNK_BYTES = 16, 20
#: Files of one block: four arrays and the commit record.
FILES_PER_BLOCK = 5


@dataclass(frozen=True)
class Rate:
    """Measured seconds per row: `prepare_s` of one core for decoding and transforms, `encode_s` of the device."""

    prepare_s: float
    encode_s: float


@dataclass(frozen=True)
class Feature:
    """One feature of one dataset; hours that were never measured and rows of unknown lengths are None.

    Args:
        device_h: hours of the device (one GPU, or one CPU core).
        core_h: hours of one core for decoding and transforms.
        made: blocks that the run's store holds already, whatever the weights.
    """

    name: str
    rows: int | None
    row_bytes: int
    bytes: int | None
    blocks: int | None
    device_h: float | None
    core_h: float | None
    made: int = 0


@dataclass(frozen=True)
class Bill:
    """One dataset's part.

    Args:
        jobs: number by rule of the workflow.
        features: what every extract job makes together.
        tuned: the same with fine-tuned weights, each in jobs of its own.
    """

    dataset: str
    clips: int
    clip_s: float | None
    jobs: dict[str, int]
    features: tuple[Feature, ...]
    tuned: tuple[Feature, ...]
    media_bytes: int | None
    exports: tuple[str, ...]
    unknown: tuple[str, ...] = field(default=())

    @property
    def every_feature(self) -> tuple[Feature, ...]:
        return self.features + self.tuned

    @property
    def feature_bytes(self) -> int | None:
        return together(feature.bytes for feature in self.every_feature)

    @property
    def files(self) -> int | None:
        blocks = together(feature.blocks for feature in self.every_feature)
        return None if blocks is None else blocks * FILES_PER_BLOCK


def together(values: Any) -> Any:
    """Sum, or None if any part is unknown: a sum without a part would look like a total."""
    values = list(values)
    return None if None in values else sum(values)


def rates(path: Path, device: str, precision: str) -> dict[str, Rate]:
    """Measured rates by feature name for one kind of device."""
    found = {}
    for name, entries in (read_yaml(path).get("encoders") or {}).items():
        for entry in entries:
            if (entry["device"], entry["precision"]) == (device.split(":")[0], precision):
                found[name] = Rate(float(entry["prepare_s"]), float(entry["encode_s"]))
    return found


def lengths(
    dataset: str, settings: dict[str, Any], manifest: Path, clips: int | None, clip_s: float | None
) -> tuple[int, Counter[float] | None]:
    """Number of clips and how many clips have each length.

    Args:
        clips, clip_s: suppose this many clips of this length, whatever the dataset has.
    """
    if clips is None and manifest.is_file():
        import pyarrow.parquet as pq

        column = pq.read_table(manifest, columns=["duration_s"])["duration_s"].to_numpy()
        values, counts = np.unique(np.nan_to_num(column.astype(float)), return_counts=True)
        return len(column), Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    count = clips if clips is not None else clip_count(dataset, settings, manifest)
    each_s = clip_s if clip_s is not None else CLIP_S.get(dataset)
    return count, None if each_s is None else Counter({each_s: count})


def feature(name: str, known: Counter[float] | None, clips: int, job_clips: int, measured: dict[str, Rate]) -> Feature:
    """Cost of one feature."""
    spec: FeatureSpec = recipe(name).spec
    row_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    if known is None and spec.grid.count is not None:
        known = Counter({0.0: clips})
    if known is None:
        return Feature(name, None, row_bytes, None, None, None, None)
    rows_of = {length: spec.grid.rows(length) for length in known}
    rows = sum(rows_of[length] * count for length, count in known.items())
    layout = plan_for(set(rows_of.values()), spec, job_clips)
    chunks = clips * -(-layout.segments // layout.chunk_rows)
    size = rows * (row_bytes + _WINDOW_BYTES) + chunks * _CHUNK_BYTES
    rate = measured.get(name) or measured.get(name.split(":")[0])
    return Feature(
        name,
        rows,
        row_bytes,
        size,
        -(-clips // layout.block_clips),
        rows * rate.encode_s / 3600 if rate else None,
        rows * rate.prepare_s / 3600 if rate else None,
    )


def blocks_made(store: Path, precision: str) -> dict[str, list[int]]:
    """Committed blocks of a store by feature name, a number for each of its weights, the largest last."""
    from pipeline.store import FeatureStore, StoreError

    try:
        opened = FeatureStore.open(store)
    except StoreError:
        return {}
    found: dict[str, list[int]] = {}
    for key in opened:
        spec = opened.spec(key)
        if spec.precision == precision:
            count = sum(1 for _ in (store / "commits" / key).glob("*.json"))
            found.setdefault(spec.name, []).append(count)
    return {name: sorted(counts) for name, counts in found.items()}


def bill(
    dataset: str,
    config: dict[str, Any],
    measured: dict[str, Rate],
    clips: int | None = None,
    clip_s: float | None = None,
) -> Bill:
    """Everything one dataset of a configuration will ask for."""
    settings = config["datasets"][dataset]
    manifest = Path(config["run"]) / dataset / "manifest.parquet"
    count, known = lengths(dataset, settings, manifest, clips, clip_s)
    made = {} if clips is not None else blocks_made(manifest.parent / "features", config["precision"])

    def cost(name: str, shown: str = "") -> Feature:
        own = feature(name, known, count, config["job_clips"], measured)
        counts = made.get(recipe(name).name) or [0]
        return replace(own, name=shown or name, made=counts.pop())

    features = tuple(cost(name) for name in settings["encoders"])
    tunings = [(tuning, seed) for tuning in settings.get("finetune", []) for seed in tuning.get("seeds", [0])]
    tuned = tuple(
        cost(tuning["visual"], f"{tuning['visual']} tuned {tuning['name']}-{seed}")
        for tuning, seed in tunings
        if tuning.get("tune") != "projections"  # their encoder stays as it is
    )
    layouts = tuple(layout for layout, _ in exports(settings))
    trainings = sum(len(run.get("seeds", [0])) for run in settings.get("train", []))
    extractions = max(1, -(-count // config["job_clips"]))
    jobs = {
        "prepare": 1,
        "acquire": int("acquire" in settings),
        "prepare_teacher": int("teach" in settings),
        "teach": int("teach" in settings),
        "extract": extractions,
        "pseudolabel": int("pseudolabel" in settings),
        "finetune": len(tunings),
        "extract_tuned": len(tuned) * extractions,
        "train": trainings,
        "score": trainings,
        "effect": int(bool(tuned)),
        "export": len(layouts),
        "report": 1,
        "release": int(bool(settings.get("release"))),
    }
    media = Path(settings.get("media", manifest.parent / "media"))
    seconds = None if known is None else sum(length * n for length, n in known.items()) / max(count, 1)
    unknown = tuple(each.name for each in features if each.rows is not None and each.device_h is None)
    return Bill(
        dataset,
        count,
        seconds or None,
        {rule: number for rule, number in jobs.items() if number},
        features,
        tuned,
        _folder_bytes(media) if clips is None else None,
        layouts,
        unknown,
    )


def _folder_bytes(folder: Path) -> int | None:
    """Bytes of the media that are there; None if there is no folder yet."""
    if not folder.is_dir():
        return None
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
