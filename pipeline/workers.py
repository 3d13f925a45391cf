"""Worker processes that may hang or die without taking the run with them.

Each worker has its own pipe and works on one task at a time.  A worker that sends nothing for too long, or dies,
costs the clip it was working on and is replaced.  Pipes are read only when the caller has room, so a slow device
slows the decoders down instead of filling memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from extractors.base import Encoder, build
from extractors.spec import FeatureSpec
from pipeline.preparation import Failure, Part, Task, prepare_clip

# Forked children would inherit the locks of the numerical libraries' threads.
START_METHOD = "spawn"


def _quiet_decoders() -> None:
    """One thread per worker and no decoder chatter: the workers themselves are the parallelism."""
    import av.logging
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    av.logging.set_level(av.logging.PANIC)


def _encoders(specs: dict[str, FeatureSpec]) -> dict[str, Encoder]:
    return {key: build(spec, weightless=True) for key, spec in specs.items()}


def _guarded(task: Task, encoders: dict[str, Encoder], folder: Path, tail: str) -> Iterator[Part | Failure]:
    """`prepare_clip`, with any surprise turned into a reason: one clip must not end the run."""
    try:
        yield from prepare_clip(task, encoders, folder, tail)
    except MemoryError:
        for key in task.keys:
            yield Failure(task.row, key, "crashed", f"clip {task.clip.id}: out of memory while decoding")
    except Exception as error:  # whatever a decoder or front end raises on this clip is this clip's reason
        for key in task.keys:
            yield Failure(task.row, key, "decode-error", f"clip {task.clip.id}: {type(error).__name__}: {error}")


def _work(pipe: Connection, specs: dict[str, FeatureSpec], folder: Path, tail: str) -> None:
    """Body of a worker process: tasks in, parts and failures out, None after each task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it stops its workers
    _quiet_decoders()
    encoders = _encoders(specs)
    pipe.send(None)
    while (task := pipe.recv()) is not None:
        for item in _guarded(task, encoders, folder, tail):
            if isinstance(item, Part):  # numpy travels as one buffer; torch would open a shared file per tensor
                item = Part(item.row, item.key, item.offset, item.batch.numpy(), item.segments, item.last)
            pipe.send(item)
        pipe.send(None)


class _Worker:
    def __init__(self, number: int, start: Callable[[], tuple[multiprocessing.Process, Connection]]) -> None:
        self.number = number
        self.process, self.pipe = start()
        self.task: Task | None = None
        self.ready = False
        self.heard_s = time.monotonic()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class WorkerPool:
    """Prepares tasks in worker processes and yields their parts as they come.

    Args:
        specs: by key.
        folder: of media files.
        count: worker processes; 0 works in this process, without protection against hangs.
        tail: `pad` or `drop`.
        timeout_s: a worker that sends nothing for so long is killed and its clip fails as `timeout`.
    """

    def __init__(
        self, specs: dict[str, FeatureSpec], folder: Path, count: int, tail: str = "pad", timeout_s: float = 300.0
    ) -> None:
        self.specs, self.folder, self.count, self.tail, self.timeout_s = specs, Path(folder), count, tail, timeout_s

    def run(self, tasks: Iterable[Task]) -> Iterator[Part | Failure]:
        """Parts and failures of all tasks; every key of every task ends in a last part or a failure."""
        if self.count == 0:
            encoders = _encoders(self.specs)
            for task in tasks:
                yield from _guarded(task, encoders, self.folder, self.tail)
            return
        yield from self._run_processes(deque(tasks))

    def _start(self) -> tuple[multiprocessing.Process, Connection]:
        context = multiprocessing.get_context(START_METHOD)
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self.specs, self.folder, self.tail), daemon=True, name="clave-decoder"
        )
        # Read by the numerical libraries when they are loaded in the child.
        saved = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        os.environ.update(dict.fromkeys(saved, "1"))
        try:
            process.start()
        finally:
            for name, value in saved.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        theirs.close()
        return process, ours

    def _run_processes(self, queue: deque[Task]) -> Iterator[Part | Failure]:
        workers = [_Worker(number, self._start) for number in range(min(self.count, max(len(queue), 1)))]
        idle_deaths = 0
        try:
            while queue or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.ready and worker.task is None and queue:
                        worker.task, worker.heard_s = queue.popleft(), time.monotonic()
                        worker.pipe.send(worker.task)
                ready = wait([worker.pipe for worker in workers], timeout=1.0)
                for worker in workers:
                    if worker.pipe in ready:
                        try:
                            item = worker.pipe.recv()
                        except (EOFError, OSError):
                            died_idle = worker.task is None
                            yield from self._replace(worker, "crashed", "the decoding process died")
                            idle_deaths += died_idle
                            if idle_deaths > 3:
                                raise RuntimeError(
                                    "decoding processes cannot start; run with --workers 0 to see why"
                                ) from None
                            continue
                        worker.heard_s = time.monotonic()
                        if item is None:
                            worker.ready, worker.task = True, None
                        elif isinstance(item, Part):
                            yield Part(
                                item.row, item.key, item.offset, torch.from_numpy(item.batch), item.segments, item.last
                            )
                        else:
                            yield item
                    elif worker.task is not None and time.monotonic() - worker.heard_s > self.timeout_s:
                        yield from self._replace(
                            worker, "timeout", f"no progress in {self.timeout_s:.0f} s of decoding"
                        )
        finally:
            for worker in workers:
                worker.stop()

    def _replace(self, worker: _Worker, outcome: str, why: str) -> Iterator[Failure]:
        task = worker.task
        worker.stop()
        worker.process, worker.pipe = self._start()
        worker.task, worker.ready, worker.heard_s = None, False, time.monotonic()
        if task is not None:
            for key in task.keys:
                yield Failure(task.row, key, outcome, f"clip {task.clip.id}: {why}")
