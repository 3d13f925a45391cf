"""Stage: clip lists become verified media files, and a ledger says what became of the rest.

Sources: `youtube` (video ids, through yt-dlp), `folder` and `archive` (files that you have, matched by the ids in their
names), `http` (a list of ids and URLs, or a URL with {source_id} in it).  The same command continues where it stopped.
Sign-in, regional and copyright blocks are respected and recorded; nothing here works around them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.acquisition.options import parser, usage_problem
from pipeline.acquisition.pace import Pace
from pipeline.acquisition.refusals import Refusal
from pipeline.run import BROKE, DONE, TOO_MANY_FAILED, USAGE, UsageError, command, log, receipt, write_json

#: Seconds between two downloads unless --pause says otherwise.
PAUSES_S = {"youtube": 8.0, "http": 1.0, "folder": 0.0, "archive": 0.0}
# For the dry run's estimate, where nobody knows sizes: a 480p video of AudioSet's kind.
_ASSUMED_BYTES, _ASSUMED_BYTES_PER_S = 15 << 20, 2 << 20


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 done; 1 broke, or a site asked to stop; 2 usage; 3 more clips missing than --max-failed."""
    made = parser(__doc__)
    arguments = made.parse_args(argv)
    if problem := usage_problem(arguments):
        made.print_usage(sys.stderr)
        log(f"acquire: {problem}")
        return USAGE
    with command("acquire"):
        try:
            return _annotations(arguments) if arguments.dataset else _acquire(arguments)
        except Refusal as refusal:
            log(f"acquire: {refusal}")
            return BROKE


def _acquire(arguments: argparse.Namespace) -> int:
    from pipeline.acquisition.ledger import Ledger, locked
    from pipeline.acquisition.offsets import apply_offsets, read_offsets
    from pipeline.acquisition.shelf import Shelf
    from pipeline.manifest import Manifest

    manifest = Manifest.load(arguments.manifest).check()
    shelf, ledger = Shelf(arguments.media), Ledger(arguments.ledger, manifest.dataset)
    if arguments.summary:
        return _finish(arguments, manifest, ledger, shelf, write=False)
    clips = apply_offsets(manifest.clips, read_offsets(arguments.offsets))
    if arguments.dry_run:
        return _dry_run(arguments, manifest, clips, ledger, shelf)
    # A second run of this dataset is a mistake; one of another dataset has its turn with the folder that they share.
    with locked([arguments.ledger]), locked([arguments.media / ".acquire.lock"], wait=True):
        # Read again under the lock: another run may have written since.
        return _run(arguments, manifest, clips, Ledger(arguments.ledger, manifest.dataset), shelf)


def _run(arguments: argparse.Namespace, manifest: Any, clips: list, ledger: Any, shelf: Any) -> int:
    from pipeline.acquisition.collect import Collector, Settings, announce
    from pipeline.acquisition.plan import make_plan

    if (stop := _still_stopped(ledger, arguments)) is not None:
        announce(stop)
        log("Give --ignore-stop if you know better.")
        return BROKE
    source = _source(arguments, shelf)
    plan = make_plan(clips, manifest.dataset, source, ledger, shelf, arguments.retry)
    ledger.add(*(attempt for attempt in plan.nowhere if not _is_known(attempt, ledger)))
    log(
        f"{len(plan.done)} clips are here, {plan.clips} to get in {len(plan.jobs)} download(s) or file(s), "
        f"{len(plan.nowhere)} not to be had from this source, {len(plan.given_up)} given up before"
    )
    settings = Settings(
        tries=arguments.tries,
        tolerance_s=arguments.tolerance,
        need=arguments.need,
        keep_original=arguments.keep_original,
        link=arguments.link,
        known_starts=frozenset(clip.id for clip in manifest.clips if clip.start_s is not None),
    )
    pause_s = PAUSES_S[arguments.source] if arguments.pause is None else arguments.pause
    pace = Pace(pause_s=pause_s, first_wait_s=arguments.backoff)
    collector = Collector(source, shelf, ledger, pace, settings, manifest.dataset)
    stop = collector.run(plan.jobs, arguments.concurrency)
    if collector.network_is_down:
        _finish(arguments, manifest, ledger, shelf, write=False)
        log(
            "stopped: download after download ended in network trouble.  Run the same command when the network is back."
        )
        return BROKE
    if stop is not None:
        _finish(arguments, manifest, ledger, shelf, write=False)
        announce(stop)
        return BROKE
    return _finish(arguments, manifest, ledger, shelf, write=True)


def _is_known(attempt: Any, ledger: Any) -> bool:
    """Whether the ledger's last word on the clip is this already."""
    last = ledger.last(attempt.clip)
    return last is not None and (last.outcome, last.message) == (attempt.outcome, attempt.message)


def _finish(arguments: argparse.Namespace, manifest: Any, ledger: Any, shelf: Any, write: bool) -> int:
    """Print the summary; at the end of a whole run also write the manifest of media, the reports and the receipt."""
    from pipeline.acquisition import hygiene, summary

    found = summary.outcomes(manifest, ledger, shelf)
    here = [ledger.final(clip) for clip, outcome in found.items() if outcome == "ok"]
    report = hygiene.hygiene(here)
    print(summary.describe(manifest, found, ledger))
    print(hygiene.describe(report))
    if arguments.hygiene:
        write_json(arguments.hygiene, report)
    if write:
        records = shelf.write_records(manifest.dataset, here)
        if all(outcome not in ("transient", "truncated", "timeout", "crashed") for outcome in found.values()):
            shelf.sweep()
        if arguments.receipt:
            write_json(
                arguments.receipt,
                receipt(
                    "acquire",
                    _told(arguments),
                    dataset=manifest.dataset,
                    manifest=manifest.digest,
                    counts=summary.counts(manifest, found),
                    media={"file": records.name, "sha256": shelf.digest(records)},
                    hygiene=report,
                ),
            )
    if later := [clip for clip, outcome in found.items() if outcome != "ok" and _is_worth_another_try(clip, ledger)]:
        log(
            f"{len(later)} of the missing clips may be had another time: the same command tries them again (where "
            "Snakemake ran it: its own command with --forcerun acquire)"
        )
    failed = len(manifest) - len(here)
    if arguments.max_failed is not None and failed > arguments.max_failed:
        log(f"{failed} clips are missing, more than --max-failed {arguments.max_failed}")
        return TOO_MANY_FAILED
    return DONE


def _is_worth_another_try(clip_id: str, ledger: Any) -> bool:
    from pipeline.acquisition.refusals import LATER

    last = ledger.last(clip_id)
    return last is not None and last.again == LATER


def _told(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as a receipt may show them: whether there were cookies, not which."""
    from pipeline.acquisition.refusals import redact

    told = {}
    for name, value in vars(arguments).items():
        if name in ("receipt", "hygiene", "max_failed", "dry_run", "summary", "dataset", "annotations"):
            continue
        if isinstance(value, list):
            value = [redact(str(entry)) for entry in value]
        told[name] = value is not None if name == "cookies" else str(value) if isinstance(value, Path) else value
    return told


def _still_stopped(ledger: Any, arguments: argparse.Namespace) -> Any:
    """The newest stop of this source whose time is not over."""
    stops = [stop for stop in ledger.stops if stop.source == arguments.source]
    if arguments.ignore_stop or not stops:
        return None
    return stops[-1] if datetime.fromisoformat(stops[-1].come_back) > datetime.now(UTC) else None


def _source(arguments: argparse.Namespace, shelf: Any) -> Any:
    origin = arguments.origin[0] if arguments.origin else None
    make: dict[str, Callable[[], Any]] = {
        "youtube": lambda: _youtube(arguments, origin),
        "folder": lambda: _folder(arguments, origin),
        "archive": lambda: _archive(arguments),
        "http": lambda: _web(arguments, origin, shelf),
    }
    return make[arguments.source]()


def _youtube(arguments: argparse.Namespace, origin: str | None) -> Any:
    from pipeline.acquisition.youtube import WATCH, YoutubeSettings, YoutubeSource, read_cookies, runtime_hint

    if origin is None and not arguments.dry_run and (hint := runtime_hint()):
        log(hint)
    settings = YoutubeSettings(
        max_height=arguments.max_height,
        max_bytes=arguments.max_size,
        bytes_per_s=arguments.rate,
        silence_s=arguments.timeout,
        request_pause_s=min(0.75, arguments.pause) if arguments.pause is not None else 0.75,
        tries=arguments.tries,
        cookies=read_cookies(arguments.cookies) if arguments.cookies else None,
        archive=arguments.download_archive,
    )
    if origin is not None and "{source_id}" not in origin:
        raise UsageError(f"--from {origin}: with --source youtube, a URL with {{source_id}} in it")
    return YoutubeSource(settings, origin or WATCH, arguments.holds)


def _folder(arguments: argparse.Namespace, origin: str) -> Any:
    from pipeline.acquisition.folder import FolderSource

    return FolderSource(Path(origin), arguments.holds)


def _archive(arguments: argparse.Namespace) -> Any:
    from pipeline.acquisition.archive import ArchiveSource

    return ArchiveSource([Path(path) for path in arguments.origin], arguments.holds)


def _web(arguments: argparse.Namespace, origin: str, shelf: Any) -> Any:
    from pipeline.acquisition.web import WebSource

    return WebSource(origin, _client(arguments), shelf.partial, arguments.holds)


def _client(arguments: argparse.Namespace) -> Any:
    from pipeline.acquisition.client import Client, ClientSettings

    return Client(
        ClientSettings(
            max_bytes=arguments.max_size,
            silence_s=arguments.timeout,
            total_s=arguments.longest,
            bytes_per_s=arguments.rate,
        )
    )


def _dry_run(arguments: argparse.Namespace, manifest: Any, clips: list, ledger: Any, shelf: Any) -> int:
    from pipeline.acquisition.plan import make_plan

    if arguments.source == "http" and "{" not in arguments.origin[0] and "://" in arguments.origin[0]:
        raise UsageError("--dry-run asks nobody: fetch the list itself first and give it as a file")
    source = _source(arguments, shelf)
    plan = make_plan(clips, manifest.dataset, source, ledger, shelf, arguments.retry)
    sizes = [source.size(job.place) for job in plan.jobs]
    known = sum(size for size in sizes if size is not None)
    assumed = sum(size is None for size in sizes)
    total = known + assumed * _ASSUMED_BYTES
    pause_s = PAUSES_S[arguments.source] if arguments.pause is None else arguments.pause
    speed = min(arguments.rate or _ASSUMED_BYTES_PER_S, _ASSUMED_BYTES_PER_S) if source.remote else 100 << 20
    apart_s = 1.25 * pause_s * len(plan.jobs)
    seconds = max(apart_s, (total / speed + len(plan.jobs)) / arguments.concurrency)
    print(f"dataset     {manifest.dataset}: {len(manifest)} clips")
    print(f"here        {len(plan.done)}")
    print(f"given up    {len(plan.given_up)} (failed before; --retry says which are tried again)")
    print(f"nowhere     {len(plan.nowhere)} (this source has nothing for them)")
    print(f"to get      {plan.clips} clips in {len(plan.jobs)} download(s) or file(s)")
    print(f"bytes       {total / 1e9:.2f} GB" + (f", taking {assumed} at {_ASSUMED_BYTES >> 20} MB" if assumed else ""))
    print(f"hours       {seconds / 3600:.2f}, with pauses of {pause_s:g} s and {speed / 1e6:.1f} MB/s")
    return DONE


def _annotations(arguments: argparse.Namespace) -> int:
    """Bring a data set's annotation files."""
    from pipeline.acquisition import annotations
    from pipeline.datasets import description

    described = description.load(arguments.dataset)
    origin = arguments.origin[0] if arguments.origin else None
    results = annotations.collect(described, arguments.annotations, origin, _client(arguments))
    for result in results:
        print(f"{result.state:<9} {result.name:<26} {result.message}")
    return BROKE if any(result.state == "failed" for result in results) else DONE


if __name__ == "__main__":
    sys.exit(main())
