"""How much of what the hardware allows the whole pipeline keeps, per encoder.

`model`: rows a second of the network alone, same backend and batch shape, random input, in a process of its own.
`decode`: clips a second of decoding and preparing alone, one worker a core, into nowhere.
`both`: what the two leave if they share all cores and nothing else costs anything: 1 / (1 / model + 1 / decode).  On
an accelerator the two overlap, and it is the smaller one.
`clave`: `pipeline.extract`, start-up taken out (see benchmarks/measure.py).

    python benchmarks/ceiling.py
    python benchmarks/ceiling.py --encoders resnet152:llp2020,cnn14 --precision bf16 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clips as media
from benchmarks import measure

#: Encoder -> clips of the two runs: heavy ones a few, light ones many.
ENCODERS: dict[str, tuple[int, int]] = {
    "resnet50:cace2024": (1, 4),
    "clip-l14": (2, 6),
    "clip-b32": (4, 36),
    "r2plus1d:llp2020": (2, 12),
    "vggish": (8, 72),
}
_OTHER = (2, 8)
_MODEL_S = 6.0


def model_rows_per_s(name: str, precision: str, device: str, backend: str, seconds: float = _MODEL_S) -> float:
    """Rows a second of the network alone on random prepared rows of the engine's batch shape."""
    import torch

    from extractors.backends import install
    from extractors.base import load
    from pipeline.allocator import keep_freed_memory
    from pipeline.encoding import BatchedEncoder

    keep_freed_memory()
    encoder = load(name, measure.WEIGHTS, device, precision)
    install(encoder, backend)
    rows = BatchedEncoder(encoder).batch_rows
    shape, dtype = prepared_like(encoder)
    random = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        values = random.integers(0, 256, (rows, *shape)).astype(dtype)
    else:
        values = random.normal(scale=0.1, size=(rows, *shape)).astype(dtype)
    batch = torch.from_numpy(values).to(device)

    def encode() -> None:
        encoder.encode(batch).cpu()

    for _ in range(2):
        encode()
    done, begun_s = 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds or done < 3:
        encode()
        done += rows
    return done / (time.perf_counter() - begun_s)


def prepared_like(encoder: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one prepared row, from a short made clip."""
    from pipeline.media import Media

    with tempfile.TemporaryDirectory() as folder:
        path = media.write(Path(folder) / "clip.mp4", 64, 64, 0)
        with Media(path) as opened:
            batch = encoder.prepare(opened, encoder.spec.grid.segments(media.DURATION_S)).numpy()
    return batch.shape[1:], batch.dtype


def decode_clip_s(names: list[str], paths: list[Path], workers: int, device: str) -> float:
    """Seconds per clip of all that workers do for these encoders at once; the first clips, with the start, are left
    out."""
    from extractors.base import specify
    from pipeline.manifest import Clip
    from pipeline.preparation import Part, Task
    from pipeline.workers import WorkerPool

    specs = {spec.key: spec for spec in (specify(name, measure.WEIGHTS) for name in names)}
    keys = tuple(specs)
    limits = tuple(len(spec.grid.segments(media.DURATION_S)) for spec in specs.values())
    tasks = [
        Task(row, Clip(path.stem, path.stem, 0.0, media.DURATION_S, media=path.name), keys, limits)
        for row, path in enumerate(paths)
    ]
    pool = WorkerPool(specs, paths[0].parent, workers, prepared=device == "cpu")
    open_keys = {task.row: set(keys) for task in tasks}
    ends_s = []
    for item in pool.run(tasks):
        if not isinstance(item, Part):
            raise RuntimeError(item.message)
        if item.last:
            open_keys[item.row] -= set(item.keys)
            if not open_keys[item.row]:
                ends_s.append(time.perf_counter())
    first = max(workers, len(ends_s) // 5)
    return (ends_s[-1] - ends_s[first - 1]) / (len(ends_s) - first)


def in_own_process(function: str, **arguments: Any) -> float:
    """The result of one of the two functions above, measured in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", json.dumps([function, arguments])]
    done = subprocess.run(command, cwd=measure.ROOT, env=measure.shell(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{function} {arguments}:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def only(text: str) -> float:
    """What the fresh process does."""
    function, arguments = json.loads(text)
    if function == "model":
        return model_rows_per_s(**arguments)
    paths = [Path(path) for path in arguments.pop("paths")]
    return decode_clip_s(paths=paths, **arguments)


def rows_per_clip(name: str) -> int:
    from extractors.recipes import recipe

    return recipe(name).spec.grid.rows(media.DURATION_S)


def ceilings(model_s: float, decode_s: float, device: str) -> dict[str, float]:
    """Least seconds per clip that model and decoding allow, alone and together."""
    together = model_s + decode_s if device == "cpu" else max(model_s, decode_s)
    return {"model": model_s, "decode": decode_s, "both": together}


def one_encoder(name: str, folder: Path, paths: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    few, many = clips_of(name, arguments.scale)
    backend = arguments.backend or measure.best_backend(arguments.device)
    cores = len(os.sched_getaffinity(0))
    on = {"precision": arguments.precision, "device": arguments.device, "backend": backend}

    def model_s() -> float:
        return rows_per_clip(name) / in_own_process("model", name=name, **on)

    def extracted(count: int) -> measure.Run:
        return measure.extract(paths[:count], [name], folder, duration_s=media.DURATION_S, **on)

    found: dict[str, list[float]] = {"model": [], "decode": [], "clave": []}
    for _ in range(arguments.repeats):
        used = [str(path) for path in paths[: max(many, 5 * cores)]]
        found["decode"].append(
            in_own_process("decode", names=[name], paths=used, workers=cores, device=arguments.device)
        )
        # A machine's speed drifts within a minute: the network is measured before and after what is compared with it.
        first, before_s, second, after_s = extracted(few), model_s(), extracted(many), model_s()
        found["model"].append((before_s + after_s) / 2)
        found["clave"].append(measure.difference(first, second, few, many).clip_s)
        measure.log(f"{name}: seconds per clip " + ", ".join(f"{who} {made[-1]:.3f}" for who, made in found.items()))
    least = [ceilings(*pair, arguments.device) for pair in zip(found["model"], found["decode"], strict=True)]
    kept = {
        which: measure.median_ratio([each[which] for each in least], found["clave"])
        for which in ("model", "decode", "both")
    }
    return {"encoder": name, "clips": [few, many], "clip_s": found, "kept": kept}


def clips_of(name: str, scale: float) -> tuple[int, int]:
    few, many = (round(count * scale) for count in ENCODERS.get(name, _OTHER))
    return max(few, 1), max(many, few + 1, 2)


def table(report: Mapping[str, Any]) -> str:
    """Seconds per clip, and the shares of each ceiling that the pipeline keeps."""
    header = ["encoder", "model, s/clip", "decode, s/clip", "clave, s/clip", "of model", "of decode", "of both"]
    lines = []
    for entry in report["results"]:
        times = [f"{statistics.median(entry['clip_s'][who]):.3f}" for who in ("model", "decode", "clave")]
        shares = [f"{100 * entry['kept'][which]:.0f} %" for which in ("model", "decode", "both")]
        lines.append([entry["encoder"], *times, *shares])
    return measure.markdown(header, lines)


def draw(report: Mapping[str, Any], figure: Any) -> None:
    """Bars of the three shares per encoder."""
    entries = report["results"]
    axis = figure.subplots()
    for offset, which in ((-0.27, "model"), (0.0, "decode"), (0.27, "both")):
        axis.barh(
            np.arange(len(entries)) + offset, [100 * e["kept"][which] for e in entries], 0.25, label=f"of {which}"
        )
    axis.axvline(100, color="black", linewidth=0.8)
    axis.set_yticks(np.arange(len(entries)), [entry["encoder"] for entry in entries])
    axis.invert_yaxis()
    axis.set_xlabel("share of the ceiling that the whole pipeline reaches, %")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    figure.set_size_inches(7, 1.6 + 0.6 * len(entries))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", help="default: what a large manifest gets")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many clips")
    parser.add_argument("--out", type=Path, help="folder for the numbers and the figure")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.only:
        print(json.dumps(only(arguments.only)))
        return 0
    names = arguments.encoders.split(",")
    with tempfile.TemporaryDirectory(prefix="clave-ceiling-") as temporary:
        folder = Path(temporary)
        count = max(*(clips_of(name, arguments.scale)[1] for name in names), 5 * len(os.sched_getaffinity(0)))
        paths = media.make(folder / "clips", count)
        results = [one_encoder(name, folder, paths, arguments) for name in names]
    settings = measure.settings(arguments)
    measure.finish(measure.report("ceiling", settings, results), table, draw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
