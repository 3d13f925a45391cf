"""How one feature key lies on disk: blocks, chunks and codecs, fixed when the key is planned.

Codecs were chosen by measurement (`benchmarks/store_reads.py --codecs`).  Features of clips of one length are stored
plain with a CRC-32C: zstd saves under 8 % on dense float32 and makes reading up to ten times slower; on post-ReLU maps
it would save 47 % at the same cost.  Features of clips of different lengths are padded, and zstd level -1 removes the
padding at the speed of memory while it leaves dense floats alone.  Both checksums make a flipped byte an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from extractors.spec import FeatureSpec
from pipeline.manifest import Manifest
from pipeline.manifest_file import JOB_CLIPS, ManifestFile
from pipeline.outcomes import CODES, OUTCOMES

ARRAYS = ("values", "segments", "length", "outcome")
_BLOCK_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20
_AXES = {0: (), 1: ("feature",), 2: ("token", "feature"), 3: ("row", "column", "feature")}


@dataclass(frozen=True)
class Plan:
    """Layout of one key.

    Args:
        block_clips: clips per block, a divisor of the store's job size.
        segments: T of the longest clip, rounded up to whole chunks; shorter clips are padded and have a `length`.
        chunk_rows: rows read at once; all of a clip, unless they exceed 8 MB.
        ragged: whether clips have different numbers of rows.
    """

    block_clips: int
    segments: int
    chunk_rows: int
    ragged: bool


@dataclass(frozen=True)
class Companion:
    """What a key carries beside its rows, fixed when the key is planned: pseudo-labels need their class names.

    Args:
        facts: JSON values kept with the key's own; `FeatureStore.companion` reads them.
        axes: dimension names of a row, instead of those chosen by the number of axes.
        arrays: name -> dimension names and values of a small array in the key's group.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, ...] | None = None
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)


def plan(manifest: Manifest | ManifestFile, spec: FeatureSpec, job_clips: int = JOB_CLIPS) -> Plan:
    """Layout for a key: blocks of at most 64 MB, so that a writer's memory does not follow the feature's width.

    Raises:
        ValueError: job_clips is below 1.
    """
    if job_clips < 1:
        raise ValueError(f"job_clips is {job_clips}, at least 1 is needed")
    return plan_for({spec.grid.rows(duration_s or 0.0) for duration_s in manifest.durations}, spec, job_clips)


def plan_for(counts: set[int], spec: FeatureSpec, job_clips: int = JOB_CLIPS) -> Plan:
    """Layout for clips with these numbers of rows."""
    longest = max(counts, default=1)
    row_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    pieces = min(longest, max(1, -(-longest * row_bytes // _CHUNK_BYTES)))
    chunk_rows = -(-longest // pieces)
    segments = chunk_rows * -(-longest // chunk_rows)
    fits = max(1, _BLOCK_BYTES // (segments * row_bytes))
    block = next(clips for clips in range(min(fits, job_clips), 0, -1) if job_clips % clips == 0)
    return Plan(block, segments, chunk_rows, len(counts) > 1)


def create_arrays(
    folder: Path,
    manifest: Manifest | ManifestFile,
    spec: FeatureSpec,
    job_clips: int = JOB_CLIPS,
    companion: Companion | None = None,
) -> None:
    """Write the Zarr group of one key with its five arrays; only `clip`, the ids, and the companion are filled."""
    companion = companion or Companion()
    layout = plan(manifest, spec, job_clips)
    count, block, rows = len(manifest), layout.block_clips, layout.segments
    attributes = {
        "clave": {
            "spec": spec.to_dict(),
            "block_clips": block,
            "segments": rows,
            "chunk_rows": layout.chunk_rows,
            "ragged": layout.ragged,
            **({"companion": companion.facts} if companion.facts else {}),
        },
        "title": f"{spec.name} features of {manifest.dataset}",
        "source": f"{spec.name}, weights {spec.weights}",
    }
    group = zarr.create_group(folder, attributes=attributes, overwrite=True)
    shape = tuple(spec.shape)
    axes = companion.axes or _AXES.get(len(shape), tuple(f"axis_{i}" for i in range(len(shape))))
    small = {"compressors": ZstdCodec(level=1, checksum=True), "config": {"write_empty_chunks": True}}
    group.create_array(
        "values",
        shape=(count, rows, *shape),
        chunks=(1, layout.chunk_rows, *shape),
        shards=(block, rows, *shape),
        dtype=spec.dtype,
        fill_value=float("nan") if np.dtype(spec.dtype).kind == "f" else 0,
        compressors=ZstdCodec(level=-1, checksum=True) if layout.ragged else Crc32cCodec(),
        config={"write_empty_chunks": True},
        dimension_names=("clip", "segment", *axes),
        attributes={"long_name": f"{spec.encoder} {spec.layer}", "coordinates": "segments"},
    )
    group.create_array(
        "segments",
        shape=(count, rows, 2),
        chunks=(block, rows, 2),
        dtype="float64",
        fill_value=float("nan"),
        dimension_names=("clip", "segment", "bound"),
        attributes={"long_name": "start and end of each row from the start of the clip", "units": "s"},
        **small,
    )
    group.create_array(
        "length",
        shape=(count,),
        chunks=(block,),
        dtype="int32",
        fill_value=0,
        dimension_names=("clip",),
        attributes={"long_name": "rows of the clip that are filled"},
        **small,
    )
    group.create_array(
        "outcome",
        shape=(count,),
        chunks=(block,),
        dtype="uint8",
        fill_value=CODES["pending"],
        dimension_names=("clip",),
        attributes={"flag_values": list(range(len(OUTCOMES))), "flag_meanings": " ".join(OUTCOMES)},
        **small,
    )
    ids = group.create_array(
        "clip",
        shape=(count,),
        chunks=(max(count, 1),),
        dtype=str,
        fill_value="",
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=("clip",),
    )
    ids[:] = np.array(manifest.ids, dtype=object)
    for name, (dimensions, values) in companion.arrays.items():
        text = values.dtype.kind in "OU"
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=tuple(max(size, 1) for size in values.shape),
            dtype=str if text else values.dtype,
            fill_value="" if text else 0,
            compressors=ZstdCodec(level=1, checksum=True),
            dimension_names=dimensions,
        )
        array[...] = values.astype(object) if text else values


def shard_files(key: str, block: int, feature_axes: int) -> dict[str, str]:
    """Array name -> path of its shard file of one block, relative to the store."""
    axes = {"values": 2 + feature_axes, "segments": 3, "length": 1, "outcome": 1}
    return {name: "/".join([key, name, "c", str(block), *["0"] * (axes[name] - 1)]) for name in ARRAYS}


def metadata_files(store: Path, key: str) -> list[str]:
    """Files of a key that belong to no block, relative to the store: array metadata, ids, companions."""
    found = []
    for path in sorted((store / key).rglob("*")):
        inside = path.relative_to(store / key).parts
        if path.is_file() and not (inside[0] in ARRAYS and inside[1] == "c"):
            found.append(path.relative_to(store).as_posix())
    return found
