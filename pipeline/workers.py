"""Worker processes that may hang or die without taking the run with them.

Each worker has its own pipe and works on one task at a time.  A worker that sends nothing for too long, or dies,
costs the clip it was working on and is replaced.  Prepared rows travel in a few slots of shared memory per worker; a
worker whose slots are all full waits, so a slow device slows the decoders down instead of filling memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from extractors.base import Encoder, build
from extractors.spec import FeatureSpec
from pipeline import forkserver, temporary
from pipeline.access import AccessError
from pipeline.arena import Arena
from pipeline.preparation import Failure, Part, Task, prepare_clip

# Shared memory of a worker: ten rows of sixteen 224 x 224 frames take 24 MB; sixteen frames of 1920 x 1080, 100 MB.
# What is not used of it takes no room.
_SLOTS, _SLOT_BYTES, _FRAMES_SLOT_BYTES = 3, 24 << 20, 112 << 20


def _quiet_decoders() -> None:
    """One thread per worker and no decoder chatter: the workers themselves are the parallelism."""
    import av.logging
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    av.logging.set_level(av.logging.PANIC)


def _encoders(specs: dict[str, FeatureSpec]) -> dict[str, Encoder]:
    return {key: build(spec) for key, spec in specs.items()}


@dataclass(frozen=True)
class _Slot:
    """Where the batch of a part lies."""

    number: int
    shape: tuple[int, ...]
    dtype: str


class _Sender:
    """The worker's end: parts into slots, everything else through the pipe.

    Args:
        pipe: brings tasks, None for the end, and the numbers of slots that are free again.
    """

    def __init__(self, pipe: Connection, arena: Arena) -> None:
        self.pipe, self.arena = pipe, arena
        self.free = list(range(arena.slots))

    def task(self) -> Task | None:
        while isinstance(message := self.pipe.recv(), int):
            self.free.append(message)
        return message

    def send(self, item: Part | Failure) -> None:
        if isinstance(item, Failure):
            self.pipe.send(item)
            return
        row_bytes = item.batch[0].numel() * item.batch.element_size()
        for part in item.split(max(1, self.arena.slot_bytes // row_bytes)):
            batch = part.batch.numpy()
            if batch.nbytes > self.arena.slot_bytes:  # a single row larger than a slot
                self.pipe.send(dataclasses.replace(part, batch=batch))
                continue
            while not self.free:
                self.free.append(self.pipe.recv())  # no task comes before the end of this one
            slot = _Slot(self.free.pop(), batch.shape, batch.dtype.str)
            self.arena.view(slot.number, slot.shape, slot.dtype)[...] = batch
            self.pipe.send(dataclasses.replace(part, batch=slot))


def _end_with_parent(scratch: Path) -> None:
    """A decoder that hangs would outlive a parent that was killed, for only the parent ends it."""
    multiprocessing.parent_process().join()
    temporary.remove(scratch)
    os._exit(1)


def _work(
    pipe: Connection,
    arena: Arena,
    scratch: Path,
    specs: dict[str, FeatureSpec],
    folder: Path,
    tail: str,
    prepared: bool,
) -> None:
    """Body of a worker process: tasks in, parts and failures out, None after each task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it stops its workers
    temporary.use(scratch)
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    _quiet_decoders()
    encoders = _encoders(specs)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        _serve(_Sender(pipe, arena), encoders, folder, tail, prepared)
    temporary.remove(scratch)


def _serve(sender: _Sender, encoders: dict[str, Encoder], folder: Path, tail: str, prepared: bool) -> None:
    """Do tasks until there are no more."""
    pipe = sender.pipe
    pipe.send(None)
    while (task := sender.task()) is not None:
        try:
            for item in prepare_clip(task, encoders, folder, tail, prepared):
                sender.send(item)
        except AccessError as error:
            pipe.send((error.errno, error.strerror, error.filename))  # its cause, an error of FFmpeg, cannot travel
        pipe.send(None)


class _Worker:
    """A process, the parent's end of its pipe, the memory that they share, and the process's temporary folder."""

    def __init__(self, start: Callable[[], tuple[multiprocessing.Process, Connection, Arena, Path]]) -> None:
        self._start = start
        self.start()

    def start(self) -> None:
        self.process, self.pipe, self.arena, self.scratch = self._start()
        self.task: Task | None = None
        self.ready = False
        self.heard_s = time.monotonic()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.arena.close()
        temporary.remove(self.scratch)

    def take(self, queue: deque[Task]) -> None:
        """Begin the next task; one that died while it had none leaves it to another, and reading its pipe tells."""
        self.heard_s = time.monotonic()
        try:
            self.pipe.send(queue[0])
            self.task = queue.popleft()
        except OSError:
            self.ready = False

    def part(self, item: Part) -> tuple[Part, int | None]:
        """The part with its batch as a tensor in shared memory, and the slot to free after its use."""
        if not isinstance(item.batch, _Slot):
            return dataclasses.replace(item, batch=torch.from_numpy(item.batch)), None
        slot = item.batch
        batch = torch.from_numpy(self.arena.view(slot.number, slot.shape, slot.dtype))
        return dataclasses.replace(item, batch=batch), slot.number

    def release(self, slot: int) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile, which reading its pipe will tell
            self.pipe.send(slot)


def _paused(item: Part | Failure, workers: list[_Worker]) -> Iterator[Part | Failure]:
    """Hand the item out; how long the caller keeps it is not the workers' silence."""
    started_s = time.monotonic()
    yield item
    for worker in workers:
        worker.heard_s += time.monotonic() - started_s


class WorkerPool:
    """Prepares tasks in worker processes and yields their parts as they come.

    Args:
        specs: by key.
        folder: of media files.
        count: worker processes; 0 works in this process, without protection against hangs.
        tail: `pad` or `drop`.
        timeout_s: a worker that sends nothing for so long is killed and its clip fails as `timeout`.
        prepared: send rows as `Encoder.prepare` gives them; if not, collected ones, which the receiver transforms.
    """

    def __init__(
        self,
        specs: dict[str, FeatureSpec],
        folder: Path,
        count: int,
        tail: str = "pad",
        timeout_s: float = 300.0,
        prepared: bool = True,
    ) -> None:
        self.specs, self.folder, self.count, self.tail, self.timeout_s = specs, Path(folder), count, tail, timeout_s
        self.prepared = prepared

    def run(self, tasks: Iterable[Task]) -> Iterator[Part | Failure]:
        """Parts and failures of all tasks; every key of every task ends in a last part or a failure.

        The batch of a part is valid until the next item is asked for.

        Raises:
            AccessError: a clip cannot be read, for a reason that is none of the clip's.
        """
        if self.count == 0:
            encoders = _encoders(self.specs)
            for task in tasks:
                yield from prepare_clip(task, encoders, self.folder, self.tail, self.prepared)
            return
        yield from self._run_processes(deque(tasks))

    def _start(self) -> tuple[multiprocessing.Process, Connection, Arena, Path]:
        arena = Arena(_SLOTS, _SLOT_BYTES if self.prepared else _FRAMES_SLOT_BYTES)
        scratch = temporary.make()
        with forkserver.context() as context:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(theirs, arena, scratch, self.specs, self.folder, self.tail, self.prepared),
                daemon=True,
                name="clave-decoder",
            )
            process.start()
        theirs.close()
        return process, ours, arena, scratch

    def _run_processes(self, queue: deque[Task]) -> Iterator[Part | Failure]:
        workers = [_Worker(self._start) for _ in range(min(self.count, max(len(queue), 1)))]
        idle_deaths = 0
        try:
            while queue or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.ready and worker.task is None and queue:
                        worker.take(queue)
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
                        elif isinstance(item, tuple):
                            raise AccessError(*item)
                        elif isinstance(item, Part):
                            part, slot = worker.part(item)
                            yield from _paused(part, workers)
                            if slot is not None:
                                worker.release(slot)
                        else:
                            yield from _paused(item, workers)
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
        worker.start()
        if task is not None:
            for key in task.keys:
                yield Failure(task.row, key, outcome, f"clip {task.clip.id}: {why}")
