"""Shared memory between a process that fills it and one that empties it, slot by slot.

The memory has no name in the file system, so nothing is left over when a process is killed, and it is not bounded by
the size of /dev/shm, which is 64 MB in many containers.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing import reduction

import numpy as np

# Slots start on a page, where copies are fastest.
_PAGE = mmap.PAGESIZE


class Arena:
    """`slots` pieces of `slot_bytes` each.  It can be sent to a child process when that is started, not later.

    Who fills a slot must know that it is free; `pipeline.workers` sends free slots back through the pipe.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots, self.slot_bytes = slots, -(-slot_bytes // _PAGE) * _PAGE
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("clave-arena")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        os.ftruncate(self._descriptor, slots * self.slot_bytes)
        self._map = mmap.mmap(self._descriptor, slots * self.slot_bytes)

    def __getstate__(self) -> dict:
        return {"slots": self.slots, "slot_bytes": self.slot_bytes, "descriptor": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict) -> None:
        self.slots, self.slot_bytes = state["slots"], state["slot_bytes"]
        self._descriptor = state["descriptor"].detach()
        self._map = mmap.mmap(self._descriptor, self.slots * self.slot_bytes)

    def view(self, slot: int, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """The slot's first bytes as an array that shares its memory.

        Raises:
            ValueError: the array is larger than the slot.
        """
        count, dtype = int(np.prod(shape)), np.dtype(dtype)
        if count * dtype.itemsize > self.slot_bytes:
            raise ValueError(f"an array of {count * dtype.itemsize} bytes is larger than a slot of {self.slot_bytes}")
        return np.frombuffer(self._map, dtype, count, slot * self.slot_bytes).reshape(shape)

    def close(self) -> None:
        """Give the memory back once no array looks at it any more."""
        os.close(self._descriptor)
