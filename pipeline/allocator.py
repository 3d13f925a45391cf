"""Keep freed memory in the process instead of handing it back after every layer."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc not to return large buffers to the system.

    By default every activation of more than 32 MB is mapped, zeroed page by page and unmapped again; for VGG-19 on 16
    images that was 600,000 page faults and most of the time (`benchmarks/allocator.py` measures it).  Must run before
    the first big allocation.

    Returns:
        True if the C library took all settings; False elsewhere than on glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
