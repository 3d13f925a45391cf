"""Memory that a child process fills and the parent reads."""

import multiprocessing
import os

import numpy as np
import pytest

from pipeline.arena import Arena


def _fill(arena, slot):
    arena.view(slot, (3, 2), "<f4")[...] = np.arange(6).reshape(3, 2)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_what_a_child_writes_the_parent_reads(method):
    arena = Arena(2, 10_000)
    arena.view(0, (2,), "u1")[...] = 7
    child = multiprocessing.get_context(method).Process(target=_fill, args=(arena, 1))
    child.start()
    child.join()
    assert child.exitcode == 0
    np.testing.assert_array_equal(arena.view(1, (3, 2), "<f4"), [[0, 1], [2, 3], [4, 5]])
    assert arena.view(0, (2,), "u1").tolist() == [7, 7], "slots do not overlap"
    arena.close()


def test_too_large_an_array_is_refused():
    arena = Arena(1, 4096)
    arena.view(0, (1024,), "f4")
    with pytest.raises(ValueError, match="larger than a slot of 4096"):
        arena.view(0, (1025,), "f4")
    arena.close()


def test_nothing_stays_open():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc on this system")
    arena = Arena(4, 1 << 20)
    arena.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the mapping's own duplicate, gone with the object
    del arena
    assert len(os.listdir("/proc/self/fd")) == before
