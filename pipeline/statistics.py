"""What the numbers of a store look like: mean, variance, histogram and principal components of every feature.

Blocks are read one at a time, here or on Dask workers (a cluster made for this call, or a running one's address), and
only sums come back: memory follows a block, not the store.  Principal components of maps are those of their channels,
averaged over places.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import add_arguments, spread
from pipeline.folder import save_npz
from pipeline.moments import Moments, block_histogram, block_moments, block_projection, components
from pipeline.run import DONE, Progress, check_numbers, command, log, write_json
from pipeline.store import FeatureStore

EXAMPLE = """\
example:
  python -m pipeline.statistics --store demo/features --out demo/statistics
  python -m pipeline.statistics --store demo/features --out demo/statistics --workers 4
  python -m pipeline.statistics --store demo/features --out demo/statistics --scheduler tcp://10.0.0.7:8786
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.statistics",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--store", required=True, type=Path)
    made.add_argument("--out", required=True, type=Path, help="folder for statistics.json and one .npz per feature")
    made.add_argument("--key", action="append", metavar="NAME", help="only this feature; may be given several times")
    made.add_argument("--bins", type=int, default=100, help="bins of the histogram (default %(default)s)")
    made.add_argument("--components", type=int, default=2, metavar="K", help="principal axes (default %(default)s)")
    made.add_argument("--points", type=int, default=5000, metavar="N", help="clips in the projection, at most")
    add_arguments(made)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("statistics"):
        return _statistics(arguments)


def _statistics(arguments: argparse.Namespace) -> int:
    check_numbers(arguments, bins=1, components=0, points=0)
    store = FeatureStore.open(arguments.store)
    keys = [store.key(name) for name in arguments.key] if arguments.key else store.keys()
    summary: dict[str, Any] = {}
    for key in keys:
        made = _of_key(store, key, arguments)
        if made is None:
            log(f"{key}: no clip has rows; left out")
            continue
        summary[key], arrays = made
        save_npz(arguments.out / f"{key}.npz", arrays)
        facts = summary[key]
        print(
            f"{key}: {facts['rows']} rows, mean {facts['mean']:.4g}, standard deviation {facts['deviation']:.4g}, "
            f"{facts['zero_share']:.1%} zeros, {facts['constant']} of {facts['values_per_row']} values never change"
        )
    write_json(arguments.out / "statistics.json", {"store": store.facts, "features": summary})
    return DONE


def _of_key(store: FeatureStore, key: str, arguments: argparse.Namespace) -> tuple[dict, dict] | None:
    blocks = [block for block, _ in store.blocks(key) if store.commit(key, block) is not None]
    shape = store.spec(key).shape
    maps = len(shape) > 1

    def over(function: Callable, what: str, *more: Any) -> Any:
        """Results for all blocks, in order; counted for the person who waits."""
        progress = Progress(len(blocks), f"blocks of {key}, {what}")
        items = ((store.path, key, block, *more) for block in blocks)
        for result in spread(function, items, arguments.workers, arguments.scheduler):
            progress.add()
            yield result
        progress.close()

    every = _merge(over(block_moments, "moments", not maps, False))
    if every is None:
        return None
    channels = _merge(over(block_moments, "channels", True, True)) if maps and arguments.components else every
    low, high = float(every.lowest.min()), float(every.highest.max())
    if low == high:
        high = low + 1.0
    counts = sum(over(block_histogram, "histogram", low, high, arguments.bins))
    arrays = {
        "mean": every.mean.reshape(shape),
        "variance": every.variance.reshape(shape),
        "minimum": every.lowest.reshape(shape),
        "maximum": every.highest.reshape(shape),
        "histogram": counts,
        "edges": np.linspace(low, high, arguments.bins + 1),
    }
    values = every.rows * len(every.mean)
    mean = float(every.mean.mean())
    facts = {
        "rows": every.rows,
        "values_per_row": len(every.mean),
        "mean": mean,
        "deviation": float(np.sqrt(every.variance.mean() + ((every.mean - mean) ** 2).mean())),
        "minimum": low,
        "maximum": float(every.highest.max()),
        "zero_share": every.zeros / values,
        "constant": int((every.lowest == every.highest).sum()),
    }
    if arguments.components and channels is not None and channels.scatter is not None:
        axes, shares = components(channels.scatter, channels.rows, arguments.components)
        arrays |= {"centre": channels.mean, "axes": axes, "explained": shares}
        facts["explained"] = [float(share) for share in shares]
        if arguments.points:
            step = max(1, -(-store.facts["clips"] // arguments.points))
            found = list(over(block_projection, "projection", channels.mean, axes, step))
            arrays["point_rows"] = np.concatenate([rows for rows, _ in found])
            arrays["points"] = np.concatenate([points for _, points in found])
    return facts, arrays


def _merge(parts: Any) -> Moments | None:
    """Moments of all blocks, added in the order of the blocks, so that the result does not depend on the workers."""
    total: Moments | None = None
    for part in parts:
        if part is not None and total is None:
            total = part
        elif part is not None:
            total.add(part)
    return total


if __name__ == "__main__":
    sys.exit(main())
