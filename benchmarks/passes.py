"""What a second, third, ... encoder adds to a pass that decodes once.

For 1, 2, ... encoders: seconds per clip of one `pipeline.extract` with all of them, against the sum of their networks'
times alone plus one decoding for all (`bound`), and against a run of `pipeline.extract` for each (`separate`).
Start-up is taken out of all of them.  The networks are measured before and after every pass, since a shared machine's
speed moves within minutes.

    python benchmarks/passes.py
    python benchmarks/passes.py --encoders vggish,clip-b32,resnet50 --precision bf16
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ceiling, measure
from benchmarks import clips as media

ENCODERS = ("vggish", "clip-b32", "resnet50", "cnn14", "r2plus1d")


def sums(model_s: list[float], decode_s: list[float], own_s: list[float]) -> list[dict[str, float]]:
    """For the first 1, 2, ... encoders: networks plus one decoding, and one run for each.

    Args:
        model_s: of the networks of the first n encoders together, seconds per clip.
        decode_s: of one decoding for the first n encoders.
        own_s: of a run with that encoder alone.
    """
    return [
        {"bound": model_s[count - 1] + decode_s[count - 1], "separate": sum(own_s[:count])}
        for count in range(1, len(model_s) + 1)
    ]


def once(names: list[str], folder: Path, paths: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """One repeat: everything measured side by side."""
    backend = arguments.backend or measure.best_backend(arguments.device)
    cores = len(os.sched_getaffinity(0))

    def together(some: list[str]) -> float:
        return measure.cost(
            lambda count: measure.extract(
                paths[:count],
                some,
                folder,
                duration_s=media.DURATION_S,
                precision=arguments.precision,
                device=arguments.device,
                backend=backend,
            ),
            arguments.few,
            arguments.many,
        ).clip_s

    def networks(some: list[str]) -> float:
        given = {"precision": arguments.precision, "device": arguments.device, "backend": backend}
        return sum(ceiling.rows_per_clip(name) / ceiling.in_own_process("model", name=name, **given) for name in some)

    found: dict[str, list[float]] = {"model": [], "decode": [], "own": [], "pass": []}
    for count, name in enumerate(names, start=1):
        used = [str(path) for path in paths[: max(arguments.many, 5 * cores)]]
        decoded = {"names": names[:count], "paths": used, "workers": cores, "device": arguments.device}
        found["decode"].append(ceiling.in_own_process("decode", **decoded))
        found["own"].append(together([name]))
        before_s = networks(names[:count])
        found["pass"].append(found["own"][0] if count == 1 else together(names[:count]))
        found["model"].append((before_s + networks(names[:count])) / 2)
        measure.log(
            f"{count} encoders: " + ", ".join(f"{who} {made[-1]:.3f}" for who, made in found.items()) + " s/clip"
        )
    return found


def results(names: list[str], repeats: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Medians over the repeats, one entry for each number of encoders."""
    added = [sums(found["model"], found["decode"], found["own"]) for found in repeats]
    return [
        {
            "encoders": names[: place + 1],
            "pass_s": statistics.median(found["pass"][place] for found in repeats),
            "bound_s": statistics.median(each[place]["bound"] for each in added),
            "separate_s": statistics.median(each[place]["separate"] for each in added),
            "of_bound": measure.median_ratio(
                [found["pass"][place] for found in repeats], [each[place]["bound"] for each in added]
            ),
            "of_separate": measure.median_ratio(
                [found["pass"][place] for found in repeats], [each[place]["separate"] for each in added]
            ),
        }
        for place in range(len(names))
    ]


def table(report: Mapping[str, Any]) -> str:
    """One line for each number of encoders."""
    header = [
        "encoders in the pass",
        "pass, s/clip",
        "models + one decoding",
        "one run each",
        "of bound",
        "of separate",
    ]
    lines = [
        [
            f"{len(entry['encoders'])}: {'' if len(entry['encoders']) == 1 else '+ '}{entry['encoders'][-1]}",
            *(f"{entry[name]:.3f}" for name in ("pass_s", "bound_s", "separate_s")),
            *(f"{100 * entry[name]:.0f} %" for name in ("of_bound", "of_separate")),
        ]
        for entry in report["results"]
    ]
    return measure.markdown(header, lines)


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Seconds per clip over the number of encoders."""
    entries = report["results"]
    counts = [len(entry["encoders"]) for entry in entries]
    axis = figure.subplots()
    for name, label in (
        ("separate_s", "one run each"),
        ("pass_s", "one pass"),
        ("bound_s", "networks + one decoding"),
    ):
        axis.plot(counts, [entry[name] for entry in entries], marker="o", label=label)
    axis.set_xticks(
        counts, ["+ " * (count > 1) + entry["encoders"][-1] for count, entry in zip(counts, entries, strict=True)]
    )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("seconds per clip")
    axis.legend()
    figure.set_size_inches(7, 4)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="in the order in which they are added")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", help="default: what a large manifest gets")
    parser.add_argument("--few", type=int, default=2, help="clips of the shorter run")
    parser.add_argument("--many", type=int, default=10, help="clips of the longer run")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    arguments = parser.parse_args(argv)
    names = arguments.encoders.split(",")
    with tempfile.TemporaryDirectory(prefix="clave-passes-") as temporary:
        folder = Path(temporary)
        paths = media.make(folder / "clips", max(arguments.many, 5 * len(os.sched_getaffinity(0))))
        repeats = [once(names, folder, paths, arguments) for _ in range(arguments.repeats)]
    settings = measure.settings(arguments)
    measure.finish(measure.report("passes", settings, results(names, repeats)), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
