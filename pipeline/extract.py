"""Stage: clips in, feature rows out.  Each clip is opened and decoded once, however many encoders ask."""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline import forkserver
from pipeline.allocator import keep_freed_memory
from pipeline.manifest_file import JOB_CLIPS, ManifestFile
from pipeline.outcomes import MEANING
from pipeline.run import DONE, TOO_MANY_FAILED, UsageError, command, log, receipt, write_json

if TYPE_CHECKING:  # they take seconds to load, in which the decoders' server loads its own
    from extractors.base import Encoder
    from extractors.spec import FeatureSpec
    from pipeline.store import FeatureStore

Made = TypeVar("Made")

MOST_WORKERS = 16

EXAMPLE = """\
example:
  python -m pipeline.prepare --dataset demo --media demo/media --out demo/manifest.parquet
  python -m pipeline.extract --manifest demo/manifest.parquet --media demo/media --store demo/features \\
      --encoders vgg19,vggish --weights random:0
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.extract",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--media", type=Path, help="folder of clips (not needed with --describe)")
    made.add_argument("--store", type=Path, help="feature store to make or to continue")
    made.add_argument("--encoders", required=True, help="comma separated names, encoder or encoder:recipe")
    made.add_argument(
        "--weights",
        action="append",
        metavar="[NAME=]CHOICE",
        help="pretrained (default), random:SEED or a checkpoint file; once for all encoders or once per NAME=",
    )
    made.add_argument("--shard", default="0/1", metavar="i/n", help="do part i of n, counted from 0 (default 0/1)")
    made.add_argument("--job", type=int, metavar="N", help="do the N-th run of --job-clips clips instead, from 0")
    made.add_argument("--job-clips", type=int, default=JOB_CLIPS, help="clips per part at the finest; fixed per store")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument(
        "--devices", metavar="D,D", help="several at once, a process each: 0,1 are cuda:0 and cuda:1; not with --job"
    )
    made.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="part of the feature's key")
    made.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "torch", "openvino", "inductor"],
        help="what runs the networks; auto takes the fastest that is worth its start; equal within rounding",
    )
    made.add_argument(
        "--transforms",
        default="auto",
        choices=["auto", "workers", "device"],
        help="where frames are resized and spectrograms made; auto: by a GPU where there is one; equal within rounding",
    )
    made.add_argument("--tail", default="pad", choices=["pad", "drop"], help="when media ends before the grid does")
    made.add_argument("--workers", type=int, help="decoding processes; 0 decodes in this process")
    made.add_argument("--timeout", type=float, default=300.0, metavar="S", help="give a clip up after S silent seconds")
    made.add_argument(
        "--redo", default="", metavar="OUTCOMES", help="try clips again that ended so, e.g. absent,timeout"
    )
    made.add_argument("--max-failed", type=int, metavar="N", help="exit 3 if more clips than N have no rows")
    made.add_argument("--receipt", type=Path, help="JSON written last: what was done, counts, hashes")
    made.add_argument("--describe", action="store_true", help="print shapes, sizes and weights, and do nothing")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("extract"):
        if arguments.describe:
            return _describe(arguments)
        if arguments.devices:
            _on_devices(arguments)
            arguments.redo = ""  # done
        return _extract(arguments)


def _on_devices(arguments: argparse.Namespace) -> None:
    """Do the work in one process per device, each with its own share of the jobs; what is left is to count it."""
    devices = [f"cuda:{name}" if name.isdigit() else name for name in arguments.devices.split(",")]
    if arguments.job is not None:
        raise UsageError("--devices share the jobs of --shard; a single --job is the work of one device")
    index, count = _shard(arguments.shard)
    workers = arguments.workers if arguments.workers is not None else max(1, default_workers() // len(devices))
    _specs(arguments)  # checkpoints are fetched once, and a missing one is told once
    context = multiprocessing.get_context("spawn")
    running = []
    for number, device in enumerate(devices):
        own = {"device": device, "devices": None, "shard": f"{index * len(devices) + number}/{count * len(devices)}"}
        part = argparse.Namespace(**vars(arguments) | own | {"workers": workers, "receipt": None, "max_failed": None})
        running.append(context.Process(target=_device_part, args=(part,), name=f"part {number} on {device}"))
        running[-1].start()
    try:
        for process in running:
            process.join()
    finally:
        for process in running:
            process.terminate()  # nothing, unless this process was interrupted
    ended = [f"{process.name} ended with {process.exitcode}" for process in running if process.exitcode != DONE]
    if ended:
        raise ValueError(
            f"some devices did not finish their part: {', '.join(ended)}. What was committed stays; run the same "
            "command again to go on."
        )


def _device_part(arguments: argparse.Namespace) -> None:
    with command("extract"):
        sys.exit(_extract(arguments))


def _names(arguments: argparse.Namespace) -> list[str]:
    from extractors.recipes import recipe

    names = [name.strip() for name in arguments.encoders.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--encoders {arguments.encoders!r}: give each name once")
    problems = []
    for name in names:
        try:
            with contextlib.suppress(ImportError):  # said with all that cannot be loaded
                recipe(name)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n  ".join(["--encoders:", *problems]))
    return names


def _choices(arguments: argparse.Namespace, names: list[str]) -> dict[str, str]:
    """Weights choice per encoder name; a bare choice is for all that have none of their own."""
    general, own = "pretrained", {}
    for entry in arguments.weights or []:
        name, separator, choice = entry.partition("=")
        if separator and name in names:
            own[name] = choice
        elif separator and "/" not in name and "." not in name:
            raise UsageError(f"--weights {entry!r}: {name!r} is not among --encoders {', '.join(names)}")
        else:
            general = entry
    return {name: own.get(name, general) for name in names}


def _specs(arguments: argparse.Namespace) -> dict[str, FeatureSpec]:
    """What each name makes; every name that fails is reported at once."""
    from extractors.base import specify

    choices = _choices(arguments, _names(arguments))
    return _each(choices, lambda name: specify(name, choices[name], arguments.precision))


def _load(arguments: argparse.Namespace, specs: dict[str, FeatureSpec], rows: dict[str, int]) -> dict[str, Encoder]:
    """Encoders with weights, by name.

    Args:
        specs: by name.
        rows: by name, of a whole job.  What is left of one must not choose the backend, or a resumed run would round
            differently from one that was never stopped.
    """
    from extractors.backends import available, install, is_kept
    from extractors.base import load

    choices = _choices(arguments, _names(arguments))
    backend = available(arguments.device)[0] if arguments.backend == "auto" else arguments.backend

    def loaded(name: str) -> Encoder:
        lazily = is_kept(specs[name], backend)
        encoder = load(name, choices[name], arguments.device, arguments.precision, lazily)
        install(encoder, backend, rows[name] if arguments.backend == "auto" else None)
        return encoder

    return _each(rows, loaded)


def _each(names: Iterable[str], make: Callable[[str], Made]) -> dict[str, Made]:
    from extractors.weights import WeightsError

    made, problems = {}, []
    for name in names:
        try:
            made[name] = make(name)
        except (ValueError, ImportError, WeightsError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n  ".join(["cannot load every encoder:", *problems]))
    return made


def _shard(text: str) -> tuple[int, int]:
    index, separator, count = text.partition("/")
    if not separator or not index.isdigit() or not count.isdigit() or int(count) == 0:
        raise UsageError(f"--shard {text!r}: write i/n, such as 0/4")
    if int(index) >= int(count):
        raise UsageError(f"--shard {text}: the first number runs from 0 to {int(count) - 1}")
    return int(index), int(count)


def _rows(arguments: argparse.Namespace, manifest: ManifestFile) -> range:
    """Clips of this run.  A job's number means the same clips when the manifest grows; a part i of n does not."""
    if arguments.job is None:
        return manifest.shard(*_shard(arguments.shard), arguments.job_clips)
    count = -(-len(manifest) // arguments.job_clips)
    if not 0 <= arguments.job < count:
        raise UsageError(f"--job {arguments.job}: {len(manifest)} clips are jobs 0 to {count - 1}")
    return manifest.shard(arguments.job, count, arguments.job_clips)


def _describe(arguments: argparse.Namespace) -> int:
    """Print what an extraction with the same flags would make."""
    import numpy as np

    from extractors.base import specify
    from extractors.recipes import recipe
    from pipeline.layout import plan

    manifest = ManifestFile(arguments.manifest)
    rows = _rows(arguments, manifest)
    part = manifest.part(rows)
    choices = _choices(arguments, _names(arguments))
    # Nothing is fetched: only what the user names himself is looked for.
    _each(choices, lambda name: choices[name] == "pretrained" or specify(name, choices[name]))
    share = "" if len(part) == len(manifest) else f" of {len(manifest)}, {rows.start} to {rows.stop - 1}"
    splits = ", ".join(f"{name or '-'} {count}" for name, count in part.splits().items())
    print(f"{manifest.dataset}: {len(part)} clips{share}; {splits}; {arguments.precision}")
    print(f"{'feature':24} {'rows/clip':>9} {'row shape':>14} {'dtype':>8} {'total':>10} {'block':>6}  weights")
    for name, choice in choices.items():
        entry = recipe(name)
        spec = entry.spec
        layout = plan(manifest, spec, arguments.job_clips)
        row_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        count = sum(spec.grid.rows(clip.duration_s or 0.0) for clip in part.clips)
        published = entry.weights.name if entry.weights else "none published"
        shape = "x".join(map(str, spec.shape))
        print(
            f"{name:24} {layout.segments:9d} {shape:>14} {spec.dtype:>8} {_size(count * row_bytes):>10} "
            f"{layout.block_clips:6d}  {published if choice == 'pretrained' else choice}"
        )
    return DONE


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _extract(arguments: argparse.Namespace) -> int:
    if arguments.media is None or arguments.store is None:
        raise UsageError("--media and --store are needed (or --describe)")
    if not arguments.media.is_dir():
        raise FileNotFoundError(f"--media {arguments.media}: no such folder")
    workers = arguments.workers if arguments.workers is not None else default_workers()
    if workers < 0 or arguments.job_clips < 1:
        raise UsageError(f"--workers {workers} must be at least 0, --job-clips {arguments.job_clips} at least 1")
    if workers:
        forkserver.begin()
    from pipeline import device
    from pipeline.extraction import Extraction
    from pipeline.store import FeatureStore, plan

    keep_freed_memory()
    device.use(arguments.device)
    manifest = ManifestFile(arguments.manifest)
    rows = _rows(arguments, manifest)
    clips = manifest.part(rows).check().clips
    specs = _specs(arguments)
    redo = {name for name in arguments.redo.split(",") if name}
    if unknown := redo - set(MEANING):
        raise UsageError(f"--redo {','.join(sorted(unknown))}: outcomes are {', '.join(MEANING)}")
    planned = FeatureStore.create(arguments.store, manifest, [], arguments.job_clips).keys()
    job_clips = min(arguments.job_clips, len(manifest))
    # Before their keys are planned: weights that do not fit must not leave a key that nothing can fill.
    new = {name: spec for name, spec in specs.items() if spec.key not in planned}
    new_rows = {name: job_clips * plan(manifest, spec, arguments.job_clips).segments for name, spec in new.items()}
    encoders = _load(arguments, specs, new_rows)
    store = FeatureStore.create(arguments.store, manifest, list(specs.values()), arguments.job_clips)
    extraction = Extraction(store, dict(zip(rows, clips, strict=True)), list(specs.values()), arguments.tail)
    tasks = extraction.tasks(rows, redo)
    wanted = [name for name, spec in specs.items() if any(spec.key in task.keys for task in tasks)]
    job_rows = {name: job_clips * store.plan(specs[name].key).segments for name in wanted if name not in new}
    encoders |= _load(arguments, specs, job_rows)
    on_device = arguments.transforms == "device" or (arguments.transforms == "auto" and arguments.device != "cpu")
    made = {specs[name].key: encoders[name] for name in wanted}
    extraction.run(tasks, made, arguments.media, workers, arguments.timeout, on_device)
    keys = [spec.key for spec in specs.values()]
    counts = {key: _counts(store, key, rows) for key in keys}
    failed = _failed_clips(store, keys, rows)
    if arguments.receipt:
        write_json(arguments.receipt, _receipt(arguments, store, manifest, rows, keys, counts))
    for key, tally in counts.items():
        print(f"{key}: " + ", ".join(f"{tally[name]} {name}" for name in sorted(tally, key=lambda n: (n != "ok", n))))
    lacking = sorted({name for tally in counts.values() for name in tally} - {"ok"})
    for outcome in lacking:
        log(f"  {outcome}: {MEANING[outcome]}")
    if again := [name for name in lacking if name not in redo]:
        log(f"  these are tried anew only with --redo {','.join(again)}")
    if arguments.max_failed is not None and failed > arguments.max_failed:
        log(f"extract: {failed} clips lack rows, --max-failed allows {arguments.max_failed}")
        return TOO_MANY_FAILED
    return DONE


def _records(store: FeatureStore, key: str, rows: range) -> list[dict]:
    return [record for block, _ in store.blocks(key, rows) if (record := store.commit(key, block)) is not None]


def _counts(store: FeatureStore, key: str, rows: range) -> dict[str, int]:
    total: Counter[str] = Counter()
    for record in _records(store, key, rows):
        total.update(record["outcomes"])
    return dict(total)


def _failed_clips(store: FeatureStore, keys: list[str], rows: range) -> int:
    """Clips that lack rows under at least one key."""
    return len({clip for key in keys for record in _records(store, key, rows) for clip in record["reasons"]})


def _receipt(
    arguments: argparse.Namespace,
    store: FeatureStore,
    manifest: ManifestFile,
    rows: range,
    keys: list[str],
    counts: dict[str, dict[str, int]],
) -> dict:
    files = {
        name: digest
        for key in keys
        for record in _records(store, key, rows)
        for name, digest in record["files"].items()
    }
    return receipt(
        "extract",
        {
            "encoders": _names(arguments),
            "weights": _choices(arguments, _names(arguments)),
            **({"shard": arguments.shard} if arguments.job is None else {"job": arguments.job}),
            "precision": arguments.precision,
            "tail": arguments.tail,
        },
        dataset=manifest.dataset,
        manifest=manifest.digest,
        clips=[rows.start, rows.stop],
        features={key: {"spec": store.spec(key).to_dict(), "outcomes": counts[key]} for key in keys},
        files=files,
    )


def default_workers() -> int:
    """Decoders: one per core; more than sixteen feed no device faster."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


if __name__ == "__main__":
    sys.exit(main())
