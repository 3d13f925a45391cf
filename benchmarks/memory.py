"""Memory of a whole extraction, watched from outside, over the length of a clip and over the number of clips.

Peak of the process tree (command, workers), as the sum of proportional set sizes sampled ten times a second: a page
that processes share counts once.  Long clips are one made clip repeated without encoding it anew; many clips are links
to eight made ones of one second, read by a tiny encoder, so that what is kept per clip would show.

    python benchmarks/memory.py
    python benchmarks/memory.py --minutes 1,5,20 --counts 100,10000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure


def lengthened(path: Path, minutes: float, out: Path) -> Path:
    """The clip repeated until it lasts so long."""
    from pipeline.framedump import executable

    times = round(60 * minutes / media.DURATION_S)
    command = [executable(), "-nostdin", "-loglevel", "error", "-y", "-stream_loop", str(times - 1), "-i", str(path)]
    subprocess.run([*command, "-c", "copy", str(out)], check=True)
    return out


def peak(paths: list[Path], encoders: list[str], folder: Path, duration_s: float | None, options: list[str]) -> int:
    return measure.extract(
        paths, encoders, folder, duration_s=duration_s, options=options, watch_memory=True
    ).peak_bytes


def growth(points: list[dict[str, Any]]) -> float:
    """Peak of the last point over that of the first."""
    return points[-1]["peak_bytes"] / points[0]["peak_bytes"]


def table(report: Mapping[str, Any]) -> str:
    """Two curves, one line a point."""
    lines = []
    for curve in report["results"]:
        first = curve["points"][0]["peak_bytes"]
        for point in curve["points"]:
            peak_bytes = point["peak_bytes"]
            lines.append(
                [f"{point['at']:g} {curve['unit']}", f"{peak_bytes / 2**20:.0f} MiB", f"{peak_bytes / first:.3f}x"]
            )
    return measure.markdown(["work", "peak of the process tree", "against the smallest"], lines)


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Peak memory over length and over number."""
    axes = figure.subplots(1, len(report["results"]), squeeze=False)[0]
    for axis, curve in zip(axes, report["results"], strict=True):
        axis.plot(
            [point["at"] for point in curve["points"]],
            [point["peak_bytes"] / 2**20 for point in curve["points"]],
            marker="o",
        )
        axis.set_ylim(bottom=0)
        axis.set_xlabel(f"{curve['unit']} ({', '.join(curve['encoders'])})")
        axis.set_ylabel("peak of the process tree, MiB")
        if curve["points"][-1]["at"] / curve["points"][0]["at"] >= 50:
            axis.set_xscale("log")
    figure.set_size_inches(8, 3.6)


def numbers(text: str) -> list[float]:
    found = [float(part) for part in text.split(",")]
    if sorted(set(found)) != found:
        raise argparse.ArgumentTypeError(f"{text}: give ascending numbers")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=numbers, default=[1.0, 5.0, 20.0], help="lengths of the long clip")
    parser.add_argument("--long-encoders", default="clip-b32,vggish", type=lambda text: text.split(","))
    parser.add_argument("--counts", type=numbers, default=[100.0, 1000.0, 10_000.0], help="numbers of short clips")
    parser.add_argument("--many-encoders", default="clip-tiny", type=lambda text: text.split(","))
    parser.add_argument("--extract", default=[], type=str.split, help="more options for pipeline.extract, in quotes")
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    arguments = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory(prefix="clave-memory-") as temporary:
        folder = Path(temporary)
        (short,) = media.make(folder / "source", 1)
        points = []
        for minutes in arguments.minutes:
            (folder / "long").mkdir(exist_ok=True)
            clip = lengthened(short, minutes, folder / "long" / f"{minutes:g}-minutes.mp4")
            found = peak([clip], arguments.long_encoders, folder, None, arguments.extract)
            points.append({"at": minutes, "peak_bytes": found})
            measure.log(f"{minutes:g} minutes: {found / 2**20:.0f} MiB")
            clip.unlink()
        results.append({"unit": "minutes in one clip", "encoders": arguments.long_encoders, "points": points})
        points = []
        for count in map(int, arguments.counts):
            paths = media.make(folder / "short", count, size="128x96", duration_s=1.0)
            found = peak(paths, arguments.many_encoders, folder, 1.0, arguments.extract)
            points.append({"at": count, "peak_bytes": found})
            measure.log(f"{count} clips: {found / 2**20:.0f} MiB")
        results.append({"unit": "clips of one second", "encoders": arguments.many_encoders, "points": points})
    for curve in results:
        curve["growth"] = growth(curve["points"])
    settings = {"extract": arguments.extract, "backend": measure.best_backend("cpu")}
    measure.finish(measure.report("memory", settings, results), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
