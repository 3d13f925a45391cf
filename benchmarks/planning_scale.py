"""What planning costs at 10^5 and 10^6 clips: every step before and after the jobs, in a process of its own.

Steps: `manifest` (write it), `load` (all of it), `store` (create it with one feature), `job` (what every extract job
does first), `open` (list what is missing), `plan` (pipeline.plan), `dry-run` (snakemake -n over all jobs), `report`
(pipeline.report before anything is made).  Time and memory should grow with the clips and no faster; `growth` is their
ratio to the size before, divided by the ratio of clips: at most 1 is linear.

    python benchmarks/planning_scale.py --clips 10000,100000
    python benchmarks/planning_scale.py --clips 1000000 --steps manifest,store,dry-run
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STEPS = ("manifest", "load", "store", "job", "open", "plan", "dry-run", "report")


def manifest(folder: Path, clips: int) -> None:
    """Clips of ten seconds with one event each, as LLP has them."""
    from pipeline.manifest import Clip, Event, Manifest

    event = (Event("Bell", "both", 0.0, 5.0),)
    made = Manifest(
        "llp",
        tuple(
            Clip(f"{row:011d}_{row % 500}", f"{row:011d}", float(row % 500), 10.0, "train", ("Bell",), event)
            for row in range(clips)
        ),
        ("Bell",),
        {"title": "synthetic"},
    )
    made.save(folder / "run" / "llp" / "manifest.parquet")


def load(folder: Path, clips: int) -> None:
    """What stages do that need all clips: trainings, exports, the report."""
    from pipeline.manifest import Manifest

    assert len(Manifest.load(folder / "run" / "llp" / "manifest.parquet").check()) == clips


def store(folder: Path, clips: int) -> None:
    """What the first extract job does: plan the store."""
    from extractors.recipes import recipe
    from pipeline.manifest_file import ManifestFile
    from pipeline.store import FeatureStore

    made = ManifestFile(folder / "run" / "llp" / "manifest.parquet")
    FeatureStore.create(folder / "run" / "llp" / "features", made, [recipe("vggish:llp2020").spec])


def job(folder: Path, clips: int) -> None:
    """What every extract job does first: its own clips, the store."""
    from extractors.recipes import recipe
    from pipeline.manifest_file import ManifestFile
    from pipeline.store import FeatureStore

    spec = recipe("vggish:llp2020").spec
    file = ManifestFile(folder / "run" / "llp" / "manifest.parquet")
    rows = file.shard(clips // 512, -(-clips // 256))
    assert len(file.part(rows).check()) == len(rows)
    found = FeatureStore.create(folder / "run" / "llp" / "features", file, [spec])
    assert found.missing(spec.key, rows) == [rows]


def open_store(folder: Path, clips: int) -> None:
    """What `status` does: open, ask what is missing."""
    from pipeline.store import FeatureStore

    found = FeatureStore.open(folder / "run" / "llp" / "features")
    assert sum(len(span) for key in found for span in found.missing(key)) == clips


def run(module: str, *arguments: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def plan(folder: Path, clips: int) -> None:
    run("pipeline.plan", "--config", "config.yaml", folder=folder)


def dry_run(folder: Path, clips: int) -> None:
    snakefile = str(ROOT / "Snakefile")
    run("snakemake", "-n", "--quiet", "all", "--snakefile", snakefile, "--configfile", "config.yaml", folder=folder)


def report(folder: Path, clips: int) -> None:
    run("pipeline.report", "--run", "run/llp", "--media", "media", "--out", "report.html", folder=folder)


def one(step: str, folder: Path, clips: int) -> None:
    """Do one step in this process and print its CPU seconds, wall seconds and largest memory (children included)."""
    functions = {
        "manifest": manifest,
        "load": load,
        "store": store,
        "job": job,
        "open": open_store,
        "plan": plan,
        "dry-run": dry_run,
        "report": report,
    }
    begun = time.perf_counter()
    functions[step](folder, clips)
    wall_s = time.perf_counter() - begun
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(entry.ru_utime + entry.ru_stime for entry in usage)
    memory_mb = max(entry.ru_maxrss for entry in usage) / 1024
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "memory_mb": memory_mb}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="10000,100000", help="comma separated numbers (default %(default)s)")
    parser.add_argument("--steps", default=",".join(STEPS), help="default: all of %(default)s")
    parser.add_argument("--one", nargs=3, metavar=("STEP", "FOLDER", "CLIPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], Path(options.one[1]), int(options.one[2]))
        return 0
    before: dict[str, tuple[int, dict[str, float]]] = {}
    print(f"{'clips':>9} {'step':10} {'CPU s':>8} {'wall s':>8} {'MB':>7} {'growth s':>9} {'growth MB':>9}")
    for clips in map(int, options.clips.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "media").mkdir()
            config = "run: run\ndatasets:\n  llp: {encoders: ['vggish:llp2020'], annotations: none}\n"
            (Path(folder) / "config.yaml").write_text(config)
            for step in options.steps.split(","):
                command = [sys.executable, __file__, "--one", step, folder, str(clips)]
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
                if ran.returncode:
                    print(f"{clips:9d} {step:10} failed: {ran.stderr.strip().splitlines()[-1:]}", flush=True)
                    continue
                found = json.loads(ran.stdout)
                growth = ["", ""]
                if step in before:
                    factor = clips / before[step][0]
                    growth = [f"{found[name] / before[step][1][name] / factor:.2f}" for name in ("cpu_s", "memory_mb")]
                before[step] = (clips, found)
                print(
                    f"{clips:9d} {step:10} {found['cpu_s']:8.1f} {found['wall_s']:8.1f} {found['memory_mb']:7.0f} "
                    f"{growth[0]:>9} {growth[1]:>9}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
