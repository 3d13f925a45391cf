"""How far the rows of a faster backend or of half precision are from PyTorch's in fp32, per encoder.

Ten seconds of a made clip are prepared once; their rows are encoded by PyTorch in fp32 and by the others.
`difference` is the largest one over the largest value; `cosine` the smallest of the rows that belong together;
`neighbours` the median cosine of rows one apart, in fp32: weights are random, which brings all rows close together, so
a cosine says something only beside this one.  `threads`: on a CPU, the largest difference between a batch on one
thread and on all cores, over the largest value; 0 is bit by bit.

    python benchmarks/precision.py
    python benchmarks/precision.py --encoders resnet50,clip-b32 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure
from benchmarks.agreement import compare, cosines
from pipeline.run import same_sums_on_any_number_of_threads

ENCODERS = (
    *("vgg19", "resnet50", "resnet152", "r2plus1d", "clip-b32", "clip-l14", "swin-v2-l"),
    *("vggish", "cnn14", "clap", "htsat", "audioclip"),
)


def rows_of(name: str, precision: str, device: str, backend: str, batch: Any) -> tuple[np.ndarray, str | None]:
    """(T, d) float64 rows, and why the backend left the network to PyTorch."""
    from extractors.backends import install
    from extractors.base import load

    encoder = load(name, measure.WEIGHTS, device, precision)
    install(encoder, backend)
    rows = encoder.encode(batch.to(device)).float().cpu().numpy()
    return rows.reshape(len(rows), -1).astype(np.float64), getattr(encoder.backend, "refusal", None)


def threads_difference(name: str, backend: str, batch: Any) -> float:
    """What the number of threads changes in a batch of the engine's size."""
    import torch

    from extractors.backends import install
    from extractors.base import load

    made, before = [], torch.get_num_threads()
    for threads in (1, len(os.sched_getaffinity(0))):
        torch.set_num_threads(threads)
        encoder = load(name, measure.WEIGHTS)
        install(encoder, backend)
        made.append(encoder.encode(batch[torch.arange(encoder.batch_rows) % len(batch)]).numpy().astype(np.float64))
    torch.set_num_threads(before)
    return float(np.abs(made[0] - made[1]).max() / np.abs(made[1]).max())


def one_encoder(name: str, device: str) -> dict[str, Any]:
    """Numbers of one encoder."""
    from extractors.backends import available
    from extractors.base import build, specify
    from pipeline.media import Media

    spec = specify(name, measure.WEIGHTS)
    with tempfile.TemporaryDirectory() as folder, Media(media.write(Path(folder) / "a.mp4", 640, 360, 0)) as opened:
        batch = build(spec).prepare(opened, spec.grid.segments(media.DURATION_S))
    expected, _ = rows_of(name, "fp32", device, "torch", batch)
    found = {"encoder": name, "neighbours": float(np.median(cosines(expected[1:], expected[:-1]))), "others": []}
    for backend in available(device):
        for precision in ("fp32", "bf16"):
            if (backend, precision) == ("torch", "fp32"):
                continue
            rows, refusal = rows_of(name, precision, device, backend, batch)
            difference, cosine = compare(rows, expected)
            other = {"backend": backend, "precision": precision, "refusal": refusal}
            found["others"].append(other | {"difference": difference, "cosine": cosine})
    found["threads"] = {}
    if device == "cpu":
        found["threads"] = {backend: threads_difference(name, backend, batch) for backend in ("torch", "openvino")}
    return found


def table(report: Mapping[str, Any]) -> str:
    """One line an encoder; backends and precisions side by side."""
    ways = [(other["backend"], other["precision"]) for other in report["results"][0]["others"]]
    header = ["encoder", "neighbours"]
    for backend, precision in ways:
        header.append(f"{backend} {precision}, {'difference' if precision == 'fp32' else 'cosine'}")
    header += [f"{backend} fp32, threads" for backend in report["results"][0]["threads"]]
    lines = []
    for result in report["results"]:
        line = [f"`{result['encoder']}`", f"{result['neighbours']:.4f}"]
        for other in result["others"]:
            value = f"{other['difference']:.1e}" if other["precision"] == "fp32" else f"{other['cosine']:.6f}"
            line.append(f"left to torch ({value})" if other["refusal"] else value)
        line += [f"{value:.1e}" if value else "0" for value in result["threads"].values()]
        lines.append(line)
    return measure.markdown(header, lines)


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """1 - cosine of every encoder and way, on a logarithmic scale, with the neighbours' for scale."""
    results = report["results"]
    axis = figure.subplots()
    places = np.arange(len(results))
    axis.plot(places, [max(1 - result["neighbours"], 1e-9) for result in results], "k_", ms=12, label="next second")
    for number, other in enumerate(results[0]["others"]):
        values = [max(1 - result["others"][number]["cosine"], 1e-9) for result in results]
        axis.plot(places, values, "o", label=f"{other['backend']} {other['precision']}")
    axis.set_yscale("log")
    axis.set_ylabel("1 - cosine with PyTorch fp32")
    axis.set_xticks(places, [result["encoder"] for result in results], rotation=60, ha="right")
    axis.legend()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.only:
        same_sums_on_any_number_of_threads()  # as every command does
        print(json.dumps(one_encoder(arguments.only, arguments.device)))
        return 0
    results = []
    for name in arguments.encoders.split(","):
        measure.log(name)
        # A process each: the memory of one does not add to the next one's.
        command = [sys.executable, __file__, "--only", name, "--device", arguments.device]
        done = subprocess.run(command, env=measure.shell(), stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    made = measure.report("precision", {"device": arguments.device}, results)
    measure.finish(made, table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
