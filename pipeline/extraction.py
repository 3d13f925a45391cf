"""One run over the uncommitted blocks of some clips: decode, encode and write overlap."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from extractors.base import Encoder
from extractors.spec import FeatureSpec
from pipeline.encoding import BatchedEncoder, Rows
from pipeline.manifest import Clip
from pipeline.planning import code_digest
from pipeline.preparation import Failure, Task
from pipeline.run import Progress, log
from pipeline.store import BlockWriter, FeatureStore
from pipeline.upload import uploader
from pipeline.workers import WorkerPool

# Blocks that may wait for the disk; one more makes the run wait too, so memory does not follow a slow disk.
_COMMITS = 4


class Extraction:
    """One run over the uncommitted blocks of some rows.

    A block is committed as soon as its last clip has rows or a reason, in a background thread.

    Args:
        store: that has every spec.
        clips: by row of the manifest.
        specs: wanted features.
    """

    def __init__(self, store: FeatureStore, clips: Mapping[int, Clip], specs: list[FeatureSpec]) -> None:
        self.store, self.clips = store, clips
        self.specs = {spec.key: spec for spec in specs}
        self.made_by = {key: code_digest([spec.encoder]) for key, spec in self.specs.items()}
        self.writers: dict[tuple[str, int], BlockWriter] = {}
        self.open_rows: dict[tuple[str, int], set[int]] = {}
        self.committing: list[Future] = []

    def tasks(self, rows: range, redo: set[str]) -> list[Task]:
        """One task per clip of `rows` that a block needs which is not committed, or has an outcome in `redo`."""
        wanted: dict[int, list[str]] = {}
        for key in self.specs:
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

    def run(
        self,
        tasks: list[Task],
        encoders: Mapping[str, Encoder],
        media: Path,
        workers: int,
        tail: str = "pad",
        timeout_s: float = 300.0,
        transforms: bool = False,
    ) -> None:
        """Do the tasks.

        Args:
            tasks: of this object.
            encoders: by key, for every key of a task, all on one device.
            media, workers, tail, timeout_s: see `WorkerPool`.
            transforms: the device resizes frames and makes spectrograms; the workers only decode.
        """
        if not tasks:
            return
        batched = {key: BatchedEncoder(encoder, transforms=transforms) for key, encoder in encoders.items()}
        upload = uploader(next(iter(encoders.values())).device)
        pool = WorkerPool({key: self.specs[key] for key in encoders}, media, workers, tail, timeout_s, not transforms)
        left = {task.row: set(task.keys) for task in tasks}
        failed: set[int] = set()
        progress = Progress(len(tasks), "clips")
        started_s = time.perf_counter()

        def settle(key: str, row: int) -> None:
            left[row].discard(key)
            if not left[row]:
                del left[row]
                progress.add(note=_speeds(batched.values(), time.perf_counter() - started_s, len(failed)))

        def put(key: str, done: Iterable[Rows]) -> None:
            for rows in done:
                self._writer(key, rows.row).put(rows.row, rows.values, rows.segments)
                self._close(key, rows.row)
                settle(key, rows.row)

        with ThreadPoolExecutor(1, thread_name_prefix="clave-writer") as self.background:
            for item in pool.run(tasks):
                # A clip that starts anew because its first index was wrong repeats what is settled already.
                if isinstance(item, Failure):
                    if item.key in left.get(item.row, ()):
                        failed.add(item.row)
                        batched[item.key].drop(item.row)
                        self._writer(item.key, item.row).fail(item.row, item.outcome, item.message)
                        self._close(item.key, item.row)
                        settle(item.key, item.row)
                    continue
                part = dataclasses.replace(item, batch=upload(item.batch))  # once for all encoders
                for key in item.keys:
                    if key in left.get(item.row, ()):
                        put(key, batched[key].add(part))
            for key, encoder in batched.items():
                put(key, encoder.flush())
            for future in self.committing:
                future.result()
        progress.close()

    def _block(self, key: str, row: int) -> tuple[str, int]:
        return key, row // self.store.plan(key).block_clips

    def _writer(self, key: str, row: int) -> BlockWriter:
        """The writer of the row's block, opened when its first clip arrives: memory follows the open blocks."""
        block = self._block(key, row)
        if block not in self.writers:
            self.writers[block] = self.store.writer(*block, made_by=self.made_by[key])
            self.writers[block].keep(self.open_rows[block])
        return self.writers[block]

    def _close(self, key: str, row: int) -> None:
        """Commit the row's block once nothing in it is open."""
        block = self._block(key, row)
        self.open_rows[block].discard(row)
        if not self.open_rows[block]:
            self.committing.append(self.background.submit(self.writers.pop(block).commit))
            while self.committing and (self.committing[0].done() or len(self.committing) > _COMMITS):
                self.committing.pop(0).result()  # a full disk must end the run, not pass unseen


def _speeds(encoders: Iterable[BatchedEncoder], elapsed_s: float, failed: int) -> str:
    """Clips per second of each encoder's own time, and how long all of them waited for decoded clips."""
    encoders = list(encoders)
    own = [
        f"{encoder.encoder.spec.encoder} {encoder.clips / encoder.busy_s:.3g}/s"
        for encoder in encoders
        if encoder.clips and encoder.busy_s
    ]
    waiting = 1 - sum(encoder.busy_s for encoder in encoders) / max(elapsed_s, 1e-9)
    own.append(f"waiting for clips {max(waiting, 0.0):.0%}")
    return ", ".join([*([f"{failed} with a reason"] if failed else []), *own])
