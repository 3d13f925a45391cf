"""Array-wide work inside one job: the same function over many items, here or on Dask workers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.run import UsageError

_GROUP_BYTES = 8 << 20
_MOST_ITEMS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--workers` and `--scheduler`, the same for every command that uses Dask."""
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="Dask worker processes; 0 works in this one"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use the Dask cluster at this address instead")


def groups(count: int, item_bytes: int) -> Iterator[range]:
    """Positions 0..count-1 in runs of a few MB, for items whose content workers hand over."""
    size = max(1, min(_MOST_ITEMS, _GROUP_BYTES // max(item_bytes, 1)))
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def spread(
    function: Callable[..., Any],
    items: Iterable[tuple[Any, ...]],
    workers: int = 0,
    scheduler: str | None = None,
    ahead: int = 4,
) -> Iterator[Any]:
    """Results of `function(*item)` in the order of the items, with a bounded number under way.

    Args:
        function: importable by workers; what it returns is sent back, so it should be small, or of `groups`.
        workers: processes of a cluster made for this call; 0 calls the function here.
        scheduler: address of a running cluster; wins over `workers`.
        ahead: items under way per worker.
    """
    if workers < 0:
        raise UsageError(f"--workers {workers}: give a number of processes, or 0 for none")
    if not workers and not scheduler:
        for item in items:
            yield function(*item)
        return
    from collections import deque

    from distributed import Client, LocalCluster

    cluster = None
    if not scheduler:
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    try:
        with Client(scheduler or cluster) as client:
            limit = 0
            under_way: deque = deque()
            for item in items:
                under_way.append(client.submit(function, *item, pure=False, retries=2))
                if len(under_way) >= limit:  # workers of a batch system come one by one: count them again
                    limit = ahead * max(1, len(client.nthreads()))
                while len(under_way) >= limit:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    finally:
        if cluster is not None:
            cluster.close()
