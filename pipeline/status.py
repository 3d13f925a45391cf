"""A running or finished workflow at a glance: shards done, clips per second, failures by reason, time left.

Everything is read from files that the jobs leave (commit records, receipts, logs), so it works beside any engine, on
any machine that sees the folder, and never disturbs a job.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.outcomes import MEANING
from pipeline.run import DONE, command
from pipeline.store import FeatureStore, StoreError

EXAMPLE = """\
example:
  python -m pipeline.status --run runs/demo
  python -m pipeline.status --run runs/demo --watch 5
"""

#: What a job writes last, by the first part of the name of its log; all others write receipts/<log>.json.
_LAST = {
    "prepare": "manifest.parquet",
    "prepare-teacher": "teacher.parquet",
    "teach": "teachers/teach.json",
    "finetune": "{log}/finetune.json",
    "train": "{log}/train.json",
    "score": "scores/{name}.json",
    "effect": "effect.json",
    "report": "report.html",
}


@dataclass
class Key:
    """State of one feature key.

    Args:
        blocks, clips: in all; `committed` and `settled` are those done.
        rate: clips per second over the recent past, None while too little was committed to tell.
    """

    name: str
    blocks: int
    clips: int
    committed: int = 0
    settled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rate: float | None = None

    @property
    def left_s(self) -> float | None:
        if self.settled == self.clips:
            return 0.0
        return (self.clips - self.settled) / self.rate if self.rate else None


@dataclass
class Dataset:
    """State of one dataset's folder.

    Args:
        jobs, receipts: extract jobs in all, 0 while no store is planned, and those done.
        other: number of finished jobs of other kinds.
        logs: (log, seconds since it last wrote, last line) of jobs that have begun and not ended.
        reported: the report is there, or no workflow runs that would make one.
    """

    name: str
    keys: list[Key]
    jobs: int
    receipts: int
    other: dict[str, int]
    logs: list[tuple[str, float, str]]
    reported: bool

    @property
    def finished(self) -> bool:
        """Nothing is under way, and the page that a workflow makes of everything is there, where one runs."""
        return 0 < self.jobs <= self.receipts and not self.logs and self.reported


class Watcher:
    """Reads a run again and again; a commit record is read once.

    Args:
        window_s: rates are taken over this long, up to the newest commit.
    """

    def __init__(self, run: Path, window_s: float = 600.0) -> None:
        self.run, self.window_s = run, window_s
        self._records: dict[Path, tuple[int, int, Counter[str]]] = {}

    def datasets(self) -> list[Dataset]:
        """Every dataset folder of the run, or the run itself if it is one.

        Raises:
            FileNotFoundError: nothing of a run is there.
        """
        folders = [self.run] if _is_dataset(self.run) else sorted(filter(_is_dataset, _folders(self.run)))
        if not folders:
            raise FileNotFoundError(f"--run {self.run}: no manifest, logs or features in it or in its folders")
        return [self._dataset(folder) for folder in folders]

    def _dataset(self, folder: Path) -> Dataset:
        keys, jobs = [], 0
        try:
            store = FeatureStore.open(folder / "features")
        except StoreError:
            store = None
        if store is not None:
            keys = [self._key(store, key) for key in store]
            jobs = -(-store.facts["clips"] // store.facts["job_clips"])
        report = (folder / "report.html").is_file()
        done = {
            "teachers": int((folder / _LAST["teach"]).is_file()),
            "pseudo-labels": int((folder / "receipts" / "pseudolabel.json").is_file()),
            "tuned extract jobs": len(list(folder.glob("receipts/extract-tuned/*/*.json"))),
            "fine-tunings": len(list(folder.glob("finetune/*/finetune.json"))),
            "trainings": len(list(folder.glob("train/*/train.json"))),
            "scores": len(list(folder.glob("scores/*.json"))),
            "exports": len(list(folder.glob("receipts/export-*.json"))),
            "reports": int(report),
            "releases": int((folder / "receipts" / "release.json").is_file()),
        }
        receipts = len(list(folder.glob("receipts/extract/*.json")))
        other = {kind: count for kind, count in done.items() if count}
        reported = report or not (folder / "logs").is_dir()
        return Dataset(folder.name, keys, jobs, receipts, other, _open_logs(folder), reported)

    def _key(self, store: FeatureStore, key: str) -> Key:
        clips, size = store.facts["clips"], store.plan(key).block_clips
        found = Key(key, -(-clips // size), clips)
        times: list[tuple[int, int]] = []
        for path in sorted((store.path / "commits" / key).glob("*.json")):
            record = self._record(path)
            if record is None:
                continue
            mtime_ns, count, outcomes = record
            found.committed += 1
            found.settled += count
            found.outcomes.update(outcomes)
            times.append((mtime_ns, count))
        found.rate = _rate(times, self.window_s)
        return found

    def _record(self, path: Path) -> tuple[int, int, Counter[str]] | None:
        """Time, clips and outcomes of a commit; None if it went away or is damaged, which is for `verify` to say."""
        try:
            mtime_ns = path.stat().st_mtime_ns
            known = self._records.get(path)
            if known is None or known[0] != mtime_ns:
                content = json.loads(path.read_text())
                start, stop = content["clips"]
                known = self._records[path] = (mtime_ns, stop - start, Counter(content["outcomes"]))
            return known
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


def _is_dataset(path: Path) -> bool:
    return any((path / name).exists() for name in ("manifest.parquet", "features", "logs"))


def _rate(times: list[tuple[int, int]], window_s: float) -> float | None:
    """Clips per second between the first and the newest commit of the last `window_s` seconds of work.

    The first commit of the window only starts the clock: when its clips were begun is not known.
    """
    if not times:
        return None
    times = sorted(times)
    newest = times[-1][0]
    recent = [entry for entry in times if newest - entry[0] <= window_s * 1e9]
    elapsed_s = (newest - recent[0][0]) / 1e9
    return sum(count for _, count in recent[1:]) / elapsed_s if elapsed_s > 0 else None


def _open_logs(folder: Path) -> list[tuple[str, float, str]]:
    """Jobs that have a log and have not written yet what they write last; Snakemake deletes that before a job runs."""
    found = []
    for path in sorted((folder / "logs").rglob("*.log")):
        log = path.relative_to(folder / "logs").with_suffix("").as_posix()
        kind, _, name = log.partition("/")
        if (folder / _LAST.get(kind, "receipts/{log}.json").format(log=log, name=name)).exists():
            continue
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 2000))
            lines = file.read().decode("utf-8", "replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing written yet")
        found.append((log, max(0.0, time.time() - path.stat().st_mtime), last))
    return found


def show(datasets: list[Dataset], logs: int = 8) -> str:
    """The page as text."""
    lines = []
    for entry in datasets:
        head = f"{entry.name}: "
        head += f"{entry.receipts} of {entry.jobs} extract jobs done" if entry.jobs else "no store is planned yet"
        lines.append(head)
        if entry.other:
            lines.append("  " + ", ".join(f"{kind} {count}" for kind, count in entry.other.items()))
        if entry.keys:
            lines.append(f"  {'feature':44} {'shards':>11} {'clips':>15} {'clips/s':>8} {'left':>9}")
        for key in entry.keys:
            rate = "-" if key.rate is None else f"{key.rate:.2f}"
            lines.append(
                f"  {key.name:44} {f'{key.committed}/{key.blocks}':>11} {f'{key.settled}/{key.clips}':>15} "
                f"{rate:>8} {_clock(key.left_s):>9}"
            )
        failed: Counter[str] = Counter()
        for key in entry.keys:
            # A clip that cannot be read has its reason in every feature: it is one clip.
            failed |= Counter({reason: count for reason, count in key.outcomes.items() if reason != "ok"})
        for reason, count in failed.most_common():
            lines.append(f"  {count:7d} {reason}: {MEANING.get(reason, 'not a known outcome')}")
        if entry.logs:
            lines.append(f"  begun and not ended: {len(entry.logs)}; when they last wrote to their logs, and what:")
        for log, ago_s, last in sorted(entry.logs, key=lambda item: item[1])[:logs]:
            lines.append(f"    {log:32} {_clock(max(ago_s, 1)):>8} ago  {last[:100]}")
        if len(entry.logs) > logs:
            lines.append(f"    and {len(entry.logs) - logs} more")
    return "\n".join(lines)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds == 0:
        return "done"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.status",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--run", required=True, type=Path, help="the configuration's `run`, or one dataset in it")
    made.add_argument("--watch", type=float, metavar="S", help="show again every S seconds until everything is done")
    made.add_argument("--window", type=float, default=600.0, metavar="S", help="rates over the last S seconds of work")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("status"):
        watcher = Watcher(arguments.run, arguments.window)
        while True:
            datasets = watcher.datasets()
            clear = "\x1b[2J\x1b[H" if arguments.watch and sys.stdout.isatty() else ""
            print(f"{clear}{show(datasets)}", flush=True)
            if not arguments.watch or all(entry.finished for entry in datasets):
                return DONE
            time.sleep(arguments.watch)


if __name__ == "__main__":
    sys.exit(main())
