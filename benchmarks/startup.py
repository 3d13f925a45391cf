"""What a job pays before its first row: `pipeline.extract` over one clip, from start to end.

`PyTorch`: the network as it is written.  `first`: OpenVINO, converting the network.  `later`: OpenVINO, reading what an
earlier run converted (`extractors.programs`).  Each is a process of its own, in turn; the store is new every time.

    python benchmarks/startup.py
    python benchmarks/startup.py --encoders clip-l14,clap --precision bf16
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure

ENCODERS = ("vggish", "resnet50", "clip-b32", "clap")
WAYS = {"torch": "PyTorch", "first": "first", "later": "later"}


def once(name: str, folder: Path, path: Path, precision: str) -> dict[str, float]:
    """Seconds of one run each way."""
    options = {"duration_s": media.DURATION_S, "precision": precision, "converted": False}
    shutil.rmtree(folder / measure.PROGRAMS, ignore_errors=True)
    return {
        way: measure.extract([path], [name], folder, backend=backend, **options).wall_s
        for way, backend in (("torch", "torch"), ("first", "openvino"), ("later", "openvino"))
    }


def table(report: Mapping[str, Any]) -> str:
    """Seconds per encoder, and what is saved."""
    header = ["encoder", *(f"{label}, s" for label in WAYS.values()), "first / later"]
    lines = []
    for entry in report["results"]:
        seconds = [statistics.median(entry["seconds"][way]) for way in WAYS]
        ratio = measure.median_ratio(entry["seconds"]["first"], entry["seconds"]["later"])
        lines.append([entry["encoder"], *(f"{value:.1f}" for value in seconds), f"{ratio:.1f}x"])
    return measure.markdown(header, lines)


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Three bars per encoder."""
    entries = report["results"]
    axis = figure.subplots()
    for offset, (way, label) in enumerate(WAYS.items()):
        places = np.arange(len(entries)) + (offset - 1) * 0.27
        axis.barh(places, [statistics.median(entry["seconds"][way]) for entry in entries], 0.27, label=label)
    axis.set_yticks(np.arange(len(entries)), [entry["encoder"] for entry in entries])
    axis.invert_yaxis()
    axis.set_xlabel("seconds from start to end of a run over one clip")
    axis.legend()
    figure.set_size_inches(7, 1.2 + 0.7 * len(entries))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    arguments = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory(prefix="clave-startup-") as temporary:
        folder = Path(temporary)
        path = media.write(folder / "clip.mp4", 640, 360, 0)
        for name in arguments.encoders.split(","):
            runs = [once(name, folder, path, arguments.precision) for _ in range(arguments.repeats)]
            results.append({"encoder": name, "seconds": {way: [run[way] for run in runs] for way in WAYS}})
            measure.log(f"{name}: {results[-1]['seconds']}")
    settings = {"precision": arguments.precision, "repeats": arguments.repeats, "clips": "one of 10 s, 640x360"}
    measure.finish(measure.report("startup", settings, results), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
