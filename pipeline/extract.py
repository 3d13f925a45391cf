"""Stage: clips in, feature rows out.  Each clip is opened and decoded once, however many encoders ask."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from extractors.base import Encoder
from extractors.spec import FeatureSpec
from pipeline.allocator import keep_freed_memory
from pipeline.encoding import BatchedEncoder, Rows
from pipeline.manifest import Clip, Manifest
from pipeline.manifest_file import ManifestFile
from pipeline.outcomes import MEANING
from pipeline.planning import code_digest
from pipeline.preparation import Failure, Task
from pipeline.run import DONE, TOO_MANY_FAILED, Progress, command, log, receipt, write_json
from pipeline.store import JOB_CLIPS, BlockWriter, FeatureStore, plan
from pipeline.workers import WorkerPool

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
    made.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="part of the feature's key")
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
        return _describe(arguments) if arguments.describe else _extract(arguments)


def _names(arguments: argparse.Namespace) -> list[str]:
    names = [name.strip() for name in arguments.encoders.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"--encoders {arguments.encoders!r}: give each name once")
    return names


def _choices(arguments: argparse.Namespace, names: list[str]) -> dict[str, str]:
    """Weights choice per encoder name; a bare choice is for all that have none of their own."""
    general, own = "pretrained", {}
    for entry in arguments.weights or []:
        name, separator, choice = entry.partition("=")
        if separator and name in names:
            own[name] = choice
        elif separator and "/" not in name and "." not in name:
            raise ValueError(f"--weights {entry!r}: {name!r} is not among --encoders {', '.join(names)}")
        else:
            general = entry
    return {name: own.get(name, general) for name in names}


def _load(arguments: argparse.Namespace) -> dict[str, Encoder]:
    """Encoders with weights, by key; every name that fails is reported at once."""
    from extractors.base import load
    from extractors.weights import WeightsError

    names = _names(arguments)
    loaded, problems = {}, []
    for name, choice in _choices(arguments, names).items():
        try:
            encoder = load(name, choice, arguments.device, arguments.precision)
            loaded[encoder.spec.key] = encoder
        except (ValueError, ImportError, WeightsError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n  ".join(["cannot load every encoder:", *problems]))
    return loaded


def _shard(text: str) -> tuple[int, int]:
    index, separator, count = text.partition("/")
    if not separator or not index.isdigit() or not count.isdigit() or int(count) == 0:
        raise ValueError(f"--shard {text!r}: write i/n, such as 0/4")
    return int(index), int(count)


def _rows(arguments: argparse.Namespace, manifest: ManifestFile) -> range:
    """Clips of this run.  A job's number means the same clips when the manifest grows; a part i of n does not."""
    if arguments.job is None:
        return manifest.shard(*_shard(arguments.shard), arguments.job_clips)
    count = -(-len(manifest) // arguments.job_clips)
    if not 0 <= arguments.job < count:
        raise ValueError(f"--job {arguments.job}: {len(manifest)} clips are jobs 0 to {count - 1}")
    return manifest.shard(arguments.job, count, arguments.job_clips)


def _describe(arguments: argparse.Namespace) -> int:
    """Print what an extraction would make."""
    from extractors.recipes import recipe

    manifest = Manifest.load(arguments.manifest)
    print(
        f"{manifest.dataset}: {len(manifest)} clips, "
        + ", ".join(f"{k or '-'} {n}" for k, n in manifest.splits().items())
    )
    print(f"{'feature':24} {'rows/clip':>9} {'row shape':>14} {'dtype':>8} {'total':>10} {'block':>6}  weights")
    for name in _names(arguments):
        entry = recipe(name)
        spec = entry.spec
        layout = plan(manifest, spec, arguments.job_clips)
        row_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        rows = sum(spec.grid.rows(clip.duration_s or 0.0) for clip in manifest.clips)
        weights = entry.weights.name if entry.weights else "none published"
        shape = "x".join(map(str, spec.shape))
        print(
            f"{name:24} {layout.segments:9d} {shape:>14} {spec.dtype:>8} {_size(rows * row_bytes):>10} "
            f"{layout.block_clips:6d}  {weights}"
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
        raise ValueError("--media and --store are needed (or --describe)")
    keep_freed_memory()
    if not arguments.media.is_dir():
        raise FileNotFoundError(f"--media {arguments.media}: no such folder")
    manifest = ManifestFile(arguments.manifest)
    rows = _rows(arguments, manifest)
    clips = manifest.part(rows).check().clips
    encoders = _load(arguments)
    specs = [encoder.spec for encoder in encoders.values()]
    store = FeatureStore.create(arguments.store, manifest, specs, arguments.job_clips)
    redo = {name for name in arguments.redo.split(",") if name}
    if unknown := redo - set(MEANING):
        raise ValueError(f"--redo {','.join(sorted(unknown))}: outcomes are {', '.join(MEANING)}")
    Extraction(store, dict(zip(rows, clips, strict=True)), encoders, arguments).run(rows, redo)
    counts = {key: _counts(store, key, rows) for key in encoders}
    failed = _failed_clips(store, list(encoders), rows)
    if arguments.receipt:
        write_json(arguments.receipt, _receipt(arguments, store, manifest, rows, list(encoders), counts))
    for key, tally in counts.items():
        print(f"{key}: " + ", ".join(f"{tally[name]} {name}" for name in sorted(tally, key=lambda n: (n != "ok", n))))
    for outcome in sorted({name for tally in counts.values() for name in tally} - {"ok"}):
        log(f"  {outcome}: {MEANING[outcome]}")
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


class Extraction:
    """One run over the uncommitted blocks of some rows: decode, encode and write overlap.

    A block is committed as soon as its last clip has rows or a reason, in a background thread.
    """

    def __init__(
        self,
        store: FeatureStore,
        clips: dict[int, Clip],
        encoders: dict[str, Encoder],
        arguments: argparse.Namespace,
    ) -> None:
        self.store, self.clips = store, clips
        self.batched = {key: BatchedEncoder(encoder) for key, encoder in encoders.items()}
        self.made_by = {key: code_digest([encoder.spec.encoder]) for key, encoder in encoders.items()}
        specs: dict[str, FeatureSpec] = {key: encoder.spec for key, encoder in encoders.items()}
        workers = arguments.workers if arguments.workers is not None else default_workers(arguments.device)
        self.pool = WorkerPool(specs, arguments.media, workers, arguments.tail, arguments.timeout)
        self.writers: dict[tuple[str, int], BlockWriter] = {}
        self.open_rows: dict[tuple[str, int], set[int]] = {}
        self.committing: list[Future] = []

    def run(self, rows: range, redo: set[str]) -> None:
        """Make every block of `rows` that is not committed, and those with clips whose outcome is in `redo`."""
        tasks = self._tasks(rows, redo)
        progress = Progress(len(tasks), "clips")
        left = {task.row: set(task.keys) for task in tasks}
        failed: set[int] = set()

        def settle(key: str, row: int) -> None:
            left[row].discard(key)
            if not left[row]:
                del left[row]
                progress.add(note=f"{len(failed)} with a reason" if failed else "")

        with ThreadPoolExecutor(1, thread_name_prefix="clave-writer") as self.background:
            for item in self.pool.run(tasks):
                if isinstance(item, Failure):
                    if item.key in left.get(item.row, ()):
                        failed.add(item.row)
                        self.batched[item.key].drop(item)
                        self._fail(item)
                        settle(item.key, item.row)
                    continue
                for done in self.batched[item.key].add(item):
                    self._put(item.key, done)
                    settle(item.key, done.row)
            for key, batched in self.batched.items():
                for done in batched.flush():
                    self._put(key, done)
                    settle(key, done.row)
            for future in self.committing:
                future.result()
        progress.close()

    def _tasks(self, rows: range, redo: set[str]) -> list[Task]:
        """One task per clip that some uncommitted block needs."""
        wanted: dict[int, list[str]] = {}
        for key in self.batched:
            for block, span in self.store.blocks(key, rows):
                record = self.store.commit(key, block)
                stale = record is not None and record.get("made_by") != self.made_by[key]
                if record is not None and not stale and not redo & record["outcomes"].keys():
                    continue
                if stale:
                    log(f"{key}: clips {span.start}..{span.stop - 1} were made by other code; making them again")
                kept = set(self.store.ok_rows(key, span)) if record is not None and not stale else set()
                self.open_rows[key, block] = set(span) - kept
                for row in sorted(self.open_rows[key, block]):
                    wanted.setdefault(row, []).append(key)
        return [
            Task(
                row,
                self.clips[row],
                tuple(wanted[row]),
                tuple(self.store.plan(key).segments for key in wanted[row]),
            )
            for row in sorted(wanted)
        ]

    def _block(self, key: str, row: int) -> tuple[str, int]:
        return key, row // self.store.plan(key).block_clips

    def _writer(self, key: str, row: int) -> BlockWriter:
        """The writer of the row's block, opened when its first clip arrives: memory follows the open blocks."""
        block = self._block(key, row)
        if block not in self.writers:
            self.writers[block] = self.store.writer(*block, made_by=self.made_by[key])
            self.writers[block].keep(self.open_rows[block])
        return self.writers[block]

    def _put(self, key: str, done: Rows) -> None:
        self._writer(key, done.row).put(done.row, done.values, done.segments)
        self._close(key, done.row)

    def _fail(self, failure: Failure) -> None:
        self._writer(failure.key, failure.row).fail(failure.row, failure.outcome, failure.message)
        self._close(failure.key, failure.row)

    def _close(self, key: str, row: int) -> None:
        """Commit the row's block once nothing in it is open."""
        block = self._block(key, row)
        self.open_rows[block].discard(row)
        if not self.open_rows[block]:
            self.committing.append(self.background.submit(self.writers.pop(block).commit))
            self.committing = [future for future in self.committing if not _finished(future)]


def _finished(future: Future) -> bool:
    if future.done():
        future.result()  # a full disk must end the run, not pass unseen
        return True
    return False


def default_workers(device: str) -> int:
    """Decoders: half of the cores beside a CPU model, most of them beside a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2 if device == "cpu" else cores - 1)


if __name__ == "__main__":
    sys.exit(main())
