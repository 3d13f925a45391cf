"""Work spread over Dask: workers that join late are used."""

import threading

import pytest
from distributed import LocalCluster

from pipeline.cluster import spread
from pipeline.run import UsageError

BOTH = threading.Barrier(2)


def work(meet: bool) -> bool:
    """Done when another worker is at work at the same time, where that is asked for."""
    if meet:
        BOTH.wait(timeout=5)
    return meet


def test_workers_that_join_late_get_work():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:

        def items():
            yield (False,)
            cluster.scale(2)
            cluster.wait_for_workers(2)
            yield from [(True,)] * 2

        assert list(spread(work, items(), scheduler=cluster.scheduler_address, ahead=1)) == [False, True, True]


def test_fewer_than_no_workers_are_no_number():
    with pytest.raises(UsageError, match="--workers -1"):
        list(spread(work, [], workers=-1))
