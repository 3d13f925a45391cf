"""`pipeline.extract` against the straightforward loop, and against v-iashin/video_features: same clips, same frames.

Contenders are processes of their own with their libraries' defaults, run in turn; each runs over few and over many
clips, so that start-up (imports, weights, compilation) and the cost per clip are told apart.  `steady` is the ratio
of the seconds per clip, `CPU` the same of CPU seconds (which a busy machine changes less), `whole` that of the longer
runs' total times, start-up included; all are medians over the repeats.  The contender's rows are compared with ours in
the same run; a difference beyond the tolerance is exit 1.

    python benchmarks/end_to_end.py                                    # the loop of benchmarks/loop.py
    python benchmarks/end_to_end.py --workloads resnet50 --precisions fp32
    python benchmarks/end_to_end.py --against video_features --reference ~/video_features

`--reference` and `--reference-python`: see benchmarks/video_features.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure
from benchmarks.agreement import COSINE, TOLERANCE, TOLERANCE_OF, agreement, compare
from benchmarks.video_features import CLIP, RESNET, VGGISH, VideoFeatures


@dataclass(frozen=True)
class Workload:
    """Encoders of one pass; `few` and `many` clips for the two runs.

    Args:
        peers: for video_features: its command line options of each run.
    """

    encoders: tuple[str, ...]
    few: int
    many: int
    peers: tuple[tuple[str, ...], ...] = ()


LOOP: dict[str, Workload] = {
    "resnet50": Workload(("resnet50:cace2024",), 1, 4),
    "clip-l14": Workload(("clip-l14",), 1, 4),
    "vggish": Workload(("vggish",), 8, 72),
    "llp": Workload(("resnet152:llp2020", "r2plus1d:llp2020", "vggish:llp2020"), 1, 4),
    "vgg19": Workload(("vgg19:ave2018",), 1, 3),
    "cnn14": Workload(("cnn14:cace2024",), 2, 14),
}
DEFAULT = ("resnet50", "clip-l14", "vggish", "llp")

VIDEO_FEATURES: dict[str, Workload] = {
    "clip-b32": Workload(("clip-b32",), 4, 36, (CLIP,)),
    "resnet50": Workload(("resnet50",), 4, 36, (RESNET,)),
    "vggish": Workload(("vggish",), 8, 136, (VGGISH,)),
    "all three": Workload(("clip-b32", "resnet50", "vggish"), 2, 16, (CLIP, RESNET, VGGISH)),
}


# ---- contenders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where things are and how ours is run."""

    folder: Path
    paths: list[Path]
    arguments: argparse.Namespace

    @property
    def short(self) -> Path:
        """Two seconds, for comparisons that have to encode every frame."""
        path = self.folder / "short.mp4"
        return path if path.exists() else media.write(path, 640, 360, 0, 2.0)

    def some(self, count: int) -> list[Path]:
        return self.paths[:count]

    def store(self, workload: Workload, precision: str) -> Path:
        return self._folder(workload, precision) / "store"

    def _folder(self, workload: Workload, precision: str) -> Path:
        folder = self.folder / f"{'-'.join(workload.encoders).replace(':', '.')}-{precision}"
        folder.mkdir(exist_ok=True)
        return folder

    def ours(self, workload: Workload, precision: str, count: int) -> measure.Run:
        """A fresh extraction of `count` clips."""
        return measure.extract(
            self.some(count),
            workload.encoders,
            self._folder(workload, precision),
            duration_s=self.arguments.seconds,
            precision=precision,
            device=self.arguments.device,
            backend=self.arguments.backend,
            options=self.arguments.extract,
        )

    def loop(self, workload: Workload, count: int) -> measure.Run:
        command = [sys.executable, measure.ROOT / "benchmarks" / "loop.py", "--encoders", ",".join(workload.encoders)]
        command += ["--weights", measure.WEIGHTS, "--out", self.folder / "loop", "--clips", *self.some(count)]
        return measure.run(command)


def measured(contender: Callable[[int], measure.Run], workload: Workload) -> measure.Cost:
    return measure.cost(contender, workload.few, workload.many)


def rows_of(store: Path, name: str) -> dict[str, np.ndarray]:
    """Rows of one encoder by clip id; a clip without rows is an error."""
    from pipeline.store import FeatureStore

    opened = FeatureStore.open(store)
    (key,) = [key for key in opened if opened.spec(key).name == name]
    return {clip: opened.read(clip, key) for clip in opened.ids}


def against_loop(bench: Bench, workload: Workload, precision: str) -> dict[str, Any]:
    """Differences between our store and the loop's files, per encoder, worst over the clips."""
    found = {}
    for name in workload.encoders:
        folder = bench.folder / "loop" / name.replace(":", "-")
        pairs = [
            compare(rows, np.load(folder / f"{clip}.npy"))
            for clip, rows in rows_of(bench.store(workload, precision), name).items()
        ]
        found[name] = agreement(name, precision, max(p[0] for p in pairs), min(p[1] for p in pairs))
    return found


# ---- the benchmark --------------------------------------------------------------------------------------------------


def one_workload(
    bench: Bench, name: str, workload: Workload, reference: VideoFeatures | None, log: Callable[[str], None]
) -> dict[str, Any]:
    """All repeats of one workload, contenders in turn."""
    precisions = bench.arguments.precisions
    costs: dict[str, list[measure.Cost]] = {"theirs": [], **{precision: [] for precision in precisions}}
    for repeat in range(bench.arguments.repeats):
        if reference is None:
            costs["theirs"].append(measured(lambda count: bench.loop(workload, count), workload))
        else:
            runs = [
                measured(lambda count, options=options: reference.run(options, bench.some(count)), workload)
                for options in workload.peers
            ]
            costs["theirs"].append(_sum(runs))
        for precision in precisions:
            costs[precision].append(
                measured(lambda count, precision=precision: bench.ours(workload, precision, count), workload)
            )
        parts = ", ".join(f"{who} {made[-1].clip_s:.3f}" for who, made in costs.items())
        log(f"{name}, repeat {repeat + 1}: seconds per clip {parts}")
    rows: dict[str, Any] = {}
    for precision in precisions:
        if reference is None:
            rows[precision] = against_loop(bench, workload, precision)
        else:
            rows[precision] = {
                encoder: reference.differences(encoder, bench.short, precision) for encoder in workload.encoders
            }
    return {
        "workload": name,
        "encoders": list(workload.encoders),
        "clips": [workload.few, workload.many],
        "costs": {who: [dataclasses.asdict(each) for each in made] for who, made in costs.items()},
        "rows": rows,
        "ratios": {precision: ratios(costs["theirs"], costs[precision]) for precision in precisions},
    }


def _sum(costs: list[measure.Cost]) -> measure.Cost:
    """Several programs that run one after the other over the same clips."""
    return measure.Cost(
        sum(cost.start_s for cost in costs),
        sum(cost.clip_s for cost in costs),
        sum(cost.clip_cpu_s for cost in costs),
        sum(cost.total_s for cost in costs),
        costs[0].clips,
    )


def ratios(theirs: list[measure.Cost], ours: list[measure.Cost]) -> dict[str, float]:
    """How many times as long the other one takes, with start-up taken out and with it."""
    return {
        "steady": measure.median_ratio([cost.clip_s for cost in theirs], [cost.clip_s for cost in ours]),
        "whole": measure.median_ratio([cost.total_s for cost in theirs], [cost.total_s for cost in ours]),
        "cpu": measure.median_ratio([cost.clip_cpu_s for cost in theirs], [cost.clip_cpu_s for cost in ours]),
    }


def table(report: Mapping[str, Any]) -> str:
    """One line per workload and precision."""
    other = report["settings"]["against"]
    header = [
        "workload",
        "precision",
        f"{other}, s/clip",
        "clave, s/clip",
        "steady",
        "whole",
        "CPU",
        "largest difference",
    ]
    lines = []
    for entry in report["results"]:
        for precision, found in entry["ratios"].items():
            theirs, ours = (
                statistics.median(cost["clip_s"] for cost in entry["costs"][who]) for who in ("theirs", precision)
            )
            worst = entry["rows"][precision].values()
            if precision == "fp32":
                difference = f"{max(each['relative'] for each in worst):.0e}"
            else:
                difference = f"cosine {min(each['cosine'] for each in worst):.5f}"
            difference += "" if all(each["equal"] for each in worst) else " (too much)"
            numbers = [_number(theirs, ".3f"), _number(ours, ".3f")]
            numbers += [_number(found[name], ".2f", "x") for name in ("steady", "whole", "cpu")]
            lines.append([f"{entry['workload']}: {', '.join(entry['encoders'])}", precision, *numbers, difference])
    return measure.markdown(header, lines)


def _number(value: float, form: str, unit: str = "") -> str:
    """The number, or "-" where the clips were too few to be told from start-up."""
    return "-" if math.isnan(value) else format(value, form) + unit


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Bars of the steady ratios; the line at 1 is equal speed."""
    entries = report["results"]
    precisions = list(entries[0]["ratios"])
    axis = figure.subplots()
    height = 0.8 / len(precisions)
    for offset, precision in enumerate(precisions):
        places = np.arange(len(entries)) + (offset - (len(precisions) - 1) / 2) * height
        bars = axis.barh(places, [entry["ratios"][precision]["steady"] for entry in entries], height, label=precision)
        axis.bar_label(bars, fmt="%.1fx", padding=3)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(np.arange(len(entries)), [entry["workload"] for entry in entries])
    axis.invert_yaxis()
    axis.set_xlabel(f"clips per second relative to {report['settings']['against']}, start-up taken out")
    axis.margins(x=0.12)
    axis.legend()
    figure.set_size_inches(7, 1.2 + 0.7 * len(entries))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=["loop", "video_features"], default="loop")
    parser.add_argument("--reference", type=Path, help="checkout of v-iashin/video_features")
    parser.add_argument("--reference-python", type=Path, default=Path(sys.executable), help="interpreter for it")
    parser.add_argument("--workloads", help=f"comma separated; loop: {', '.join(LOOP)}; default {', '.join(DEFAULT)}")
    parser.add_argument("--precisions", default="fp32,bf16", type=lambda text: text.split(","))
    parser.add_argument("--repeats", type=int, default=1, help="of everything; ratios are medians")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many clips")
    parser.add_argument("--media", type=Path, help="folder of real .mp4 clips instead of made ones")
    parser.add_argument("--size", default="640x360", help="of made clips")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", help="of pipeline.extract; default: what a large manifest gets")
    parser.add_argument("--extract", default=[], type=str.split, help="more options for pipeline.extract, in quotes")
    parser.add_argument("--work", type=Path, help="keep clips and stores here instead of in a temporary folder")
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    arguments = parser.parse_args(argv)
    if arguments.against == "video_features" and arguments.reference is None:
        parser.error("--against video_features needs --reference CHECKOUT")
    known = LOOP if arguments.against == "loop" else VIDEO_FEATURES
    names = arguments.workloads.split(",") if arguments.workloads else (DEFAULT if known is LOOP else list(known))
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(known)}")
    workloads = {name: _scaled(known[name], arguments.scale) for name in names}
    arguments.seconds = media.DURATION_S if arguments.media is None else None

    settings = {
        "against": arguments.against,
        "clips": f"made, {arguments.size}" if arguments.media is None else "real",
        "repeats": arguments.repeats,
        "device": arguments.device,
        "backend": arguments.backend or measure.best_backend(arguments.device),
        "extract": arguments.extract,
        "tolerance": {"relative": TOLERANCE, "relative_of": TOLERANCE_OF, "cosine": COSINE},
    }
    file = "end_to_end" if arguments.against == "loop" else "end_to_end_video_features"
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="clave-end-to-end-") as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        count = max(workload.many for workload in workloads.values())
        source = f"clips-{arguments.size}" if arguments.media is None else "clips-real"
        paths = media.gather(folder / source, count, arguments.media, arguments.size)
        bench = Bench(folder, paths, arguments)
        reference = None
        if arguments.against == "video_features":
            reference = VideoFeatures(arguments.reference, arguments.reference_python.absolute(), Path(temporary))
        for name, workload in workloads.items():
            results.append(one_workload(bench, name, workload, reference, measure.log))
            if arguments.out is not None:  # hours of work: what is cut off later keeps what it has
                measure.save(measure.report("end_to_end", settings, results), draw, arguments.out, file)
    measure.finish(measure.report("end_to_end", settings, results), table, draw, arguments.out, file)
    equal = all(found["equal"] for entry in results for rows in entry["rows"].values() for found in rows.values())
    return 0 if equal else 1


def _scaled(workload: Workload, scale: float) -> Workload:
    few = max(round(workload.few * scale), 1)
    return dataclasses.replace(workload, few=few, many=max(round(workload.many * scale), few + 1))


if __name__ == "__main__":
    sys.exit(main())
