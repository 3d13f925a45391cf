"""Page faults and time of a network with and without `pipeline.allocator`, side by side.

Each repeat runs a fresh process per setting; eager PyTorch in both, so that nothing but the allocator differs.

    python benchmarks/allocator.py
    python benchmarks/allocator.py --encoder resnet50 --pictures 32
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure


def passes(name: str, pictures: int, keep: bool, count: int = 5) -> dict[str, float]:
    """Seconds and page faults per pass of a picture encoder's network over a batch."""
    import torch

    from extractors.base import load
    from pipeline.allocator import keep_freed_memory

    if keep and not keep_freed_memory():
        raise RuntimeError("the C library is not glibc: there is nothing to measure")
    encoder = load(name, measure.WEIGHTS)
    batch = torch.rand(pictures, 3, 224, 224)
    with torch.inference_mode():
        encoder.forward(batch)
        faults, begun_s = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        for _ in range(count):
            encoder.forward(batch)
        seconds = time.perf_counter() - begun_s
    made = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"s": seconds / count, "page_faults": made / count}


def table(report: Mapping[str, Any]) -> str:
    """The two settings and their ratio."""
    found = report["results"]
    lines = [
        [label, f"{statistics.median(found[which]['s']):.3f}", f"{statistics.median(found[which]['page_faults']):.0f}"]
        for which, label in (("default", "glibc's defaults"), ("kept", "freed memory kept"))
    ]
    ratio = measure.median_ratio(found["default"]["s"], found["kept"]["s"])
    return measure.markdown(["allocator", "s per batch", "page faults per batch"], lines) + f"\n\nRatio {ratio:.2f}x."


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Bars of the time per batch."""
    found = report["results"]
    axis = figure.subplots()
    axis.bar(["glibc's defaults", "freed memory kept"], [statistics.median(found[w]["s"]) for w in ("default", "kept")])
    axis.set_ylabel(f"seconds per batch, {report['settings']['encoder']}")
    figure.set_size_inches(4, 3)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vgg19")
    parser.add_argument("--pictures", type=int, default=16, help="per batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    parser.add_argument("--only", choices=["default", "kept"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.only:
        print(json.dumps(passes(arguments.encoder, arguments.pictures, arguments.only == "kept")))
        return 0
    found: dict[str, dict[str, list[float]]] = {which: {"s": [], "page_faults": []} for which in ("default", "kept")}
    for _ in range(arguments.repeats):
        for which, values in found.items():
            command = [sys.executable, __file__, "--encoder", arguments.encoder, "--pictures", str(arguments.pictures)]
            done = subprocess.run(
                [*command, "--only", which], env=measure.shell(), stdout=subprocess.PIPE, text=True, check=True
            )
            for name, value in json.loads(done.stdout).items():
                values[name].append(value)
    settings = {"encoder": arguments.encoder, "pictures": arguments.pictures, "repeats": arguments.repeats}
    measure.finish(measure.report("allocator", settings, found), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
