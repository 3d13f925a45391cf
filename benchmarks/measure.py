"""What the benchmarks share: commands timed and weighed from outside, the machine they ran on, and their results.

A command's memory is the sum over its process tree, sampled: `pss` counts a page that several processes share once.
Start-up is taken out by running every contender twice, over few and over many clips: what a clip costs once the
program runs is the difference of the two times over the difference of the two counts, whatever the program is.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Before the first benchmark adds to it.
_LOAD = os.getloadavg()

#: Folder of converted networks, within a benchmark's own.
PROGRAMS = "programs"
#: Same seeded weights for every contender.
WEIGHTS = "random:0"
# Start-up takes a little more or less from run to run: what it reads from disk may be in memory, or not.
_START_VARIES = 0.2
# Parameter of prctl, from linux/prctl.h.
_SUBREAPER = 36
_DEFAULTS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX", "LD_PRELOAD")
_DEFAULTS_OF += ("PYTHONDONTWRITEBYTECODE",)


@dataclass(frozen=True)
class Run:
    """One finished command.

    Args:
        wall_s: from start to end of the process, imports and loading of weights included.
        cpu_s: of the process and of every descendant, also those that it did not wait for (on Linux).
        peak_bytes: largest sampled sum of the tree's proportional set sizes; 0 where memory was not watched.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """What a contender needs: to start, and then per clip, in seconds."""

    start_s: float
    clip_s: float
    clip_cpu_s: float
    total_s: float
    clips: int


def shell() -> dict[str, str]:
    """The caller's environment without what would change a contender's defaults."""
    return {name: value for name, value in os.environ.items() if name not in _DEFAULTS_OF}


def _tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants, in bytes; processes that end meanwhile count nothing."""
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:
            continue
    return total


def run(
    command: Sequence[str],
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    watch_memory: bool = False,
    every_s: float = 0.1,
) -> Run:
    """Run a command to its end with the defaults of its libraries.

    Args:
        folder: working directory.
        environment: variables added to the caller's, from which thread counts are removed.
        watch_memory: sample the tree's memory; costs some of a core, so times are not taken from such runs.
    Raises:
        RuntimeError: the command failed; the end of what it said on stderr is in the message.
    """
    _adopt_orphans()
    others = _children()
    with tempfile.TemporaryFile() as said:
        before, begun_s = os.times(), time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=shell() | dict(environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        peaks = [0]
        done = threading.Event()

        def sample() -> None:
            while not done.wait(every_s):
                peaks[0] = max(peaks[0], _tree_bytes(process.pid))

        watcher = threading.Thread(target=sample, daemon=True)
        if watch_memory:
            watcher.start()
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            done.set()
        wall_s = time.perf_counter() - begun_s
        _wait_for_orphans(others)
        after = os.times()
        if code:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"exit code {code} from: {' '.join(map(str, command))}\n{text}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(wall_s, cpu_s, peaks[0])


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children()}


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends first, so that their CPU time is told to this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _wait_for_orphans(others: set[int], patience_s: float = 60.0) -> None:
    """Servers that a command leaves behind end as soon as they notice that it has."""
    deadline_s = time.monotonic() + patience_s
    while (orphans := _children() - others) and time.monotonic() < deadline_s:
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def extract(
    paths: Sequence[Path],
    encoders: Sequence[str],
    folder: Path,
    *,
    duration_s: float | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    backend: str | None = None,
    options: Sequence[str] = (),
    converted: bool = True,
    **more: Any,
) -> Run:
    """A fresh `pipeline.extract` with seeded weights over some files of one folder; its store is `folder/store`.

    Args:
        duration_s: of every clip; None asks the files.
        backend: None for the one that a large manifest gets.
        options: further arguments of the stage.
        converted: have a run over one clip, which does not count, convert the networks: of a user's runs only the first
            one does it.
        more: of `run`.
    """
    from benchmarks.clips import manifest
    from extractors.programs import VARIABLE

    backend = backend or best_backend(device)
    command = [sys.executable, "-m", "pipeline.extract", "--media", paths[0].parent]
    command += ["--store", folder / "store", "--encoders", ",".join(encoders), "--weights", WEIGHTS]
    command += ["--precision", precision, "--device", device, "--backend", backend, *options]
    more["environment"] = {**more.get("environment", {}), VARIABLE: str(folder / PROGRAMS)}

    def extracted(some: Sequence[Path], **more: Any) -> Run:
        listed = manifest(list(some), folder / "manifest.parquet", duration_s)
        shutil.rmtree(folder / "store", ignore_errors=True)
        return run([*command, "--manifest", listed], **more)

    done = folder / PROGRAMS / f".{'-'.join([*encoders, precision, backend]).replace(':', '.')}"
    if converted and not done.exists():
        extracted(paths[:1], environment=more["environment"])
        done.parent.mkdir(exist_ok=True)
        done.touch()
    return extracted(paths, **more)


def best_backend(device: str) -> str:
    """What `--backend auto` takes for a large manifest; a short benchmark must not get another because it is short."""
    from extractors.backends import available

    return available(device)[0]


def cost(contender: Callable[[int], Run], few: int, many: int) -> Cost:
    """Cost of a contender from a run over `few` clips and one over `many`.

    Raises:
        ValueError: `many` is not more than `few`.
    """
    if many <= few:
        raise ValueError(f"many={many} clips must be more than few={few}")
    first, second = contender(few), contender(many)
    return difference(first, second, few, many)


def difference(first: Run, second: Run, few: int, many: int) -> Cost:
    """Start-up and cost per clip from two runs; nan where they are too few clips to be told from start-up."""
    longer_s = second.wall_s - first.wall_s
    clip_s = longer_s / (many - few) if longer_s > _START_VARIES * first.wall_s else math.nan
    clip_cpu_s = (second.cpu_s - first.cpu_s) / (many - few)
    return Cost(first.wall_s - few * clip_s, clip_s, clip_cpu_s, second.wall_s, many)


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios of values measured side by side: load that comes and goes hits both of a pair alike."""
    return statistics.median(above / below for above, below in zip(numerators, denominators, strict=True))


def environment() -> dict[str, Any]:
    """The machine and the versions, without anything that names the machine or its owner."""
    from pipeline.run import versions

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(value, 2) for value in _LOAD],
        "versions": versions() | _optional_versions(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _cpu_model() -> str:
    """Name, generation (virtual machines hide it in the name) and the widest arithmetic of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = told.get("model name", "unknown")
    if "cpu family" in told:
        name += f", family {told['cpu family']} model {told.get('model', '?')}"
    flags = told.get("flags", "").split()
    widest = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return f"{name} ({widest})" if widest else name


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _optional_versions() -> dict[str, str]:
    import importlib.metadata

    found = {}
    for name in ("openvino", "transformers", "pillow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _commit() -> str:
    """Commit of the checkout, with a plus sign if tracked files differ from it; `unknown` outside git."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", "pipeline", "extractors", "benchmarks"], cwd=ROOT
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a benchmark of made clips was run with."""
    return {
        "precision": arguments.precision,
        "device": arguments.device,
        "backend": arguments.backend or best_backend(arguments.device),
        "repeats": arguments.repeats,
        "clips": "made, 640x360",
    }


def report(benchmark: str, settings: Mapping[str, Any], results: Any) -> dict[str, Any]:
    """The record of one benchmark, as its JSON file holds it."""
    return {
        "benchmark": benchmark,
        "command": f"python benchmarks/{benchmark}.py " + " ".join(_public(argument) for argument in sys.argv[1:]),
        "environment": environment(),
        "settings": dict(settings),
        "results": results,
    }


def _public(argument: str) -> str:
    """An argument of the command line; of an absolute path only its last part, since folders are a person's own."""
    return Path(argument).name if argument.startswith("/") else argument


def finish(
    made: Mapping[str, Any],
    table: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any], Any], None],
    out: Path | None,
    name: str | None = None,
) -> None:
    """Print the table; with a folder also write NAME.json and NAME.svg."""
    print(table(made), flush=True)
    if out is not None:
        save(made, draw, out, name or made["benchmark"])


def save(made: Mapping[str, Any], draw: Callable[[Mapping[str, Any], Any], None], out: Path, name: str) -> None:
    """Write NAME.json and NAME.svg."""
    from pipeline.run import write_json

    write_json(out / f"{name}.json", made)
    figure = _figure()
    draw(made, figure)
    figure.savefig(out / f"{name}.svg", metadata={"Date": None})


def _figure() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "clave"
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers, aligned to the right."""
    lines = [" | ".join(header), " | ".join(["---", *["---:"] * (len(header) - 1)])]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def log(message: str) -> None:
    """A line for people, on stderr."""
    print(message, file=sys.stderr, flush=True)
