"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that can be had without swapping: what the machine has available, or less where a cgroup allows less.

    Pages that only cache files count as free, for the kernel gives them back.

    Args:
        root: of /proc and /sys.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux, or one before 2014
        found = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([found, *_allowed(root)])


def _allowed(root: Path) -> list[int]:
    """What each limited cgroup (version 2) around this process leaves."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return []
    mount, left = root / "sys/fs/cgroup", []
    for folder in (mount / own, *(mount / own).parents):
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:  # the uppermost has no limit
            used, limit = "0", "max"
        if limit != "max":
            files = int(cached.get("inactive_file", 0)) + int(cached.get("active_file", 0))
            left.append(max(int(limit) - int(used) + files, 0))
        if folder == mount:
            break
    return left
