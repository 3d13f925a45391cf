"""One run over the uncommitted blocks of some clips: decode, encode and write overlap."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from extractors.base import Encoder
from extractors.spec import FeatureSpec
from pipeline.blocks import remove_left, scratch_path
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
        tail: what becomes of media that end before the grid does, `pad` or `drop`.
    """

    def __init__(
        self, store: FeatureStore, clips: Mapping[int, Clip], specs: list[FeatureSpec], tail: str = "pad"
    ) -> None:
        self.store, self.clips, self.tail = store, clips, tail
        self.specs = {spec.key: spec for spec in specs}
        self.made_by = {key: code_digest([spec.encoder]) for key, spec in self.specs.items()}
        self.writers: dict[tuple[str, int], BlockWriter] = {}
        self.open_rows: dict[tuple[str, int], set[int]] = {}
        self.committing: list[Future] = []
        #: Clips that have rows in a block that is made again: they stay if their media are gone.
        self.earlier: dict[tuple[str, int], set[int]] = {}

    def tasks(self, rows: range, redo: set[str]) -> list[Task]:
        """One task per clip of `rows` that has no outcome yet, or one in `redo`, or rows made in another way."""
        wanted: dict[int, list[str]] = {}
        for key in self.specs:
            for block, span in self.store.blocks(key, rows):
                again = self._open(key, block, span, redo)
                if again:
                    self.open_rows[key, block] = again
                for row in sorted(again):
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

    def _open(self, key: str, block: int, span: range, redo: set[str]) -> set[int]:
        """Rows of a block that have to be made."""
        record = self.store.commit(key, block)
        if record is None:
            return set(span)
        if why := self._other(key, record):
            log(f"{key}: clips {span.start}..{span.stop - 1} were made {why}; making them again")
            self.earlier[key, block] = {row for row, name in self._outcomes(key, span) if name == "ok"}
            return set(span)
        if self.store.is_done(key, block) and not redo & record["outcomes"].keys():
            remove_left(scratch_path(self.store.path, key, block))
            return set()
        return {row for row, name in self._outcomes(key, span) if name == "pending" or name in redo}

    def _other(self, key: str, record: Mapping[str, Any]) -> str:
        """How else a block was made than it would be now; empty if in no way."""
        if record.get("made_by") != self.made_by[key]:
            return "by other code"
        made = record.get("tail", "pad")  # records did not say it before it could be told from them
        return f"with --tail {made}" if made != self.tail else ""

    def _outcomes(self, key: str, span: range) -> Iterable[tuple[int, str]]:
        return self.store.row_outcomes(key, span).items()

    def run(
        self,
        tasks: list[Task],
        encoders: Mapping[str, Encoder],
        media: Path,
        workers: int,
        timeout_s: float = 300.0,
        transforms: bool = False,
    ) -> None:
        """Do the tasks.

        Args:
            tasks: of this object.
            encoders: by key, for every key of a task, all on one device.
            media, workers, timeout_s: see `WorkerPool`.
            transforms: the device resizes frames and makes spectrograms; the workers only decode.
        """
        if not tasks:
            return
        batched = {key: BatchedEncoder(encoder, transforms=transforms) for key, encoder in encoders.items()}
        upload = uploader(next(iter(encoders.values())).device)
        pool = WorkerPool(
            {key: self.specs[key] for key in encoders}, media, workers, self.tail, timeout_s, not transforms
        )
        left = {task.row: set(task.keys) for task in tasks}
        failed: set[int] = set()
        with_reason = 0
        progress = Progress(len(tasks), "clips")
        started_s = time.perf_counter()

        def settle(key: str, row: int) -> None:
            nonlocal with_reason
            left[row].discard(key)
            if not left[row]:
                del left[row]
                with_reason += row in failed
                progress.add(note=_speeds(batched.values(), time.perf_counter() - started_s, with_reason))

        def put(key: str, done: Iterable[Rows]) -> None:
            for rows in done:
                self._writer(key, rows.row).put(rows.row, rows.values, rows.segments)
                self._close(key, rows.row)
                settle(key, rows.row)

        def fail(failure: Failure) -> None:
            key, row = failure.key, failure.row
            failed.add(row)
            batched[key].drop(row)
            if failure.outcome == "absent" and row in self.earlier.get(self._block(key, row), ()):
                log(f"{key}: clip {self.clips[row].id} keeps the rows that it has: its media are gone")
                self._writer(key, row).keep_row(row, "made by other code, or with another tail; the media are gone")
            else:
                self._writer(key, row).fail(row, failure.outcome, failure.message)
            self._close(key, row)
            settle(key, row)

        with ThreadPoolExecutor(1, thread_name_prefix="clave-writer") as self.background:
            for item in pool.run(tasks):
                # A clip that starts anew because its first index was wrong repeats what is settled already.
                if isinstance(item, Failure):
                    if item.key in left.get(item.row, ()):
                        fail(item)
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
            self.writers[block] = self.store.writer(*block, self.made_by[key], {"tail": self.tail})
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
        f"{encoder.encoder.spec.name} {encoder.clips / encoder.busy_s:.3g}/s"
        for encoder in encoders
        if encoder.clips and encoder.busy_s
    ]
    waiting = 1 - sum(encoder.busy_s for encoder in encoders) / max(elapsed_s, 1e-9)
    own.append(f"waiting for clips {max(waiting, 0.0):.0%}")
    return ", ".join([*([f"{failed} with a reason"] if failed else []), *own])
