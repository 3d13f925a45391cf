"""What decoding and preparing cost one core, and how many cores feed a device of a given speed.

CPU seconds per 10 s clip, one thread, best of several: reading and decoding every frame alone; then, for recipes of
different appetite, all that a worker does for them: decode, convert the frames that are wanted, resize, mel; and what
is left of it where a GPU resizes and makes spectrograms ("without transforms", and the second number of each pair).
The second table multiplies: a device that takes N pictures a second wants N / (pictures per clip) clips a second.

    python benchmarks/decoding.py
    python benchmarks/decoding.py --device-rates 1000,4000,16000
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# As the workers are started; the numerical libraries read it when they are loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure

SIZES = ("640x360", "1920x1080")
ENCODERS = ("vggish", "clap", "clip-b32", "r2plus1d", "resnet50:cace2024", "resnet152:llp2020")


def cpu_s() -> float:
    """CPU seconds of this process and of those it has waited for (the ffmpeg of the JPEG route)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def best(work: Callable[[], None], repeats: int) -> float:
    """Least CPU seconds of `work`, run once more before."""
    work()
    found = []
    for _ in range(repeats):
        begun_s = cpu_s()
        work()
        found.append(cpu_s() - begun_s)
    return min(found)


def decode_all(path: Path) -> int:
    """Decode every frame without converting it; returns how many there are."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return sum(1 for _ in container.decode(stream))


def rows(encoder: Any, path: Path, transforms: bool) -> None:
    """What a worker does with a clip for one encoder, transforms included or left to a device."""
    from pipeline.media import Media

    with Media(path) as opened:
        segments = encoder.spec.grid.segments(media.DURATION_S)
        if encoder.spec.sampler is not None and encoder.spec.sampler.source == "native":
            opened.want(encoder.frame_indices(opened, segments).ravel())
        (encoder.prepare if transforms else encoder.collect)(opened, segments)


def one_size(size: str, folder: Path, encoders: list[str], repeats: int) -> list[dict[str, Any]]:
    import torch

    from extractors.base import build
    from extractors.recipes import recipe

    torch.set_num_threads(1)
    (path,) = media.make(folder / size, 1, size)
    frames = decode_all(path)
    found = [
        {
            "size": size,
            "work": "decode all frames",
            "pictures": frames,
            "cpu_s": best(lambda: decode_all(path), repeats),
        }
    ]
    for name in encoders:
        encoder = build(recipe(name).spec)
        count = encoder.spec.grid.rows(media.DURATION_S)
        pictures = count * (encoder.spec.sampler.per_row if encoder.spec.sampler else 0)
        seconds, collected = (
            best(lambda encoder=encoder, transforms=transforms: rows(encoder, path, transforms), repeats)
            for transforms in (True, False)
        )
        found.append({"size": size, "work": name, "rows": count, "pictures": pictures, "cpu_s": seconds})
        found[-1]["collect_cpu_s"] = collected
        measure.log(f"{size} {name}: {1000 * seconds:.0f} ms of one core per clip, {1000 * collected:.0f} collecting")
    return found


def cores_for(rate: float, pictures: int, cpu_s_per_clip: float) -> float:
    """Cores that prepare as fast as a device takes `rate` pictures a second."""
    return rate / pictures * cpu_s_per_clip


def table(report: Mapping[str, Any]) -> str:
    """Cost per clip; then cores for each speed of the device."""
    entries, rates = report["results"], report["settings"]["device_rates"]
    costs = [
        [
            f"{entry['work']}, {entry['size']}",
            f"{1000 * entry['cpu_s']:.0f}",
            f"{1000 * entry['collect_cpu_s']:.0f}" if "collect_cpu_s" in entry else "-",
            f"{1 / entry['cpu_s']:.1f}",
            f"{entry['pictures'] / entry['cpu_s']:.0f}" if entry["pictures"] else "-",
        ]
        for entry in entries
    ]
    feeding = [
        [
            f"{entry['work']}, {entry['size']}",
            str(entry["pictures"]),
            *(
                " / ".join(
                    f"{cores_for(rate, entry['pictures'], entry[who]):.1f}" for who in ("cpu_s", "collect_cpu_s")
                )
                for rate in rates
            ),
        ]
        for entry in entries
        if entry["pictures"] and entry["work"] != "decode all frames"
    ]
    feeders = ["cores to feed a device that takes", "pictures per clip", *(f"{rate:g}/s" for rate in rates)]
    works = ["work", "CPU ms per clip", "without transforms", "clips/s per core", "pictures/s per core"]
    return "\n\n".join([measure.markdown(works, costs), measure.markdown(feeders, feeding)])


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Clips a second of one core."""
    entries = report["results"]
    works = list(dict.fromkeys(entry["work"] for entry in entries))
    sizes = list(dict.fromkeys(entry["size"] for entry in entries))
    axis = figure.subplots()
    height = 0.8 / len(sizes)
    for offset, size in enumerate(sizes):
        rates = [1 / next(e["cpu_s"] for e in entries if e["size"] == size and e["work"] == work) for work in works]
        bars = axis.barh(np.arange(len(works)) + (offset - (len(sizes) - 1) / 2) * height, rates, height, label=size)
        axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set_yticks(np.arange(len(works)), works)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("10 s clips a second, one core")
    axis.legend()
    figure.set_size_inches(7, 1.2 + 0.6 * len(works))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), type=lambda text: text.split(","))
    parser.add_argument("--encoders", default=",".join(ENCODERS), type=lambda text: text.split(","))
    parser.add_argument(
        "--device-rates", default=[500.0, 2000.0, 8000.0], type=lambda t: [float(r) for r in t.split(",")]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="clave-decoding-") as temporary:
        results = [
            entry
            for size in arguments.sizes
            for entry in one_size(size, Path(temporary), arguments.encoders, arguments.repeats)
        ]
    settings = {"repeats": arguments.repeats, "device_rates": arguments.device_rates, "clips": "made, 10 s"}
    measure.finish(measure.report("decoding", settings, results), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
