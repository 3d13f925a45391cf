"""Free memory as the kernel tells it, on made-up machines."""

import pytest

from pipeline.memory import free_bytes

GIB = 2**30


def machine(root, available, groups, own="/"):
    """/proc and /sys of a machine; groups: path -> (limit, used, cache of files)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:  99999999 kB\nMemFree:  1024 kB\nMemAvailable:  {available // 1024} kB\n"
    )
    (root / "proc/self/cgroup").write_text(f"0::{own}\n")
    for path, (limit, used, cached) in groups.items():
        folder = root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached // 2}\nactive_file {cached // 2}\n")
    return root


@pytest.mark.parametrize(
    ("groups", "own", "expected"),
    [
        ({}, "/", 64),
        ({"": ("max", 1, 0)}, "/", 64),
        ({"": (16 * GIB, 10 * GIB, 4 * GIB)}, "/", 10),
        ({"job/step": ("max", 1, 0), "job": (8 * GIB, 5 * GIB, 0)}, "/job/step", 3),
        ({"job/step": (4 * GIB, 3 * GIB, 0), "job": (8 * GIB, 5 * GIB, 0)}, "/job/step", 1),
        ({"": (2 * GIB, 3 * GIB, 0)}, "/", 0),
        ({"": (128 * GIB, 0, 0)}, "/", 64),
    ],
)
def test_the_smallest_limit_counts_and_cached_files_do_not(tmp_path, groups, own, expected):
    assert free_bytes(machine(tmp_path, 64 * GIB, groups, own)) == expected * GIB


def test_this_machine_has_some():
    assert 0 < free_bytes() < 2**50
