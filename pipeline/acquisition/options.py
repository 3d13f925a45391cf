"""The flags of `python -m pipeline.acquire`, and which of them make sense together."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.acquisition.pace import parse_size
from pipeline.acquisition.plan import RETRIES

EXAMPLE = """\
examples:
  python -m pipeline.acquire --manifest llp.parquet --source youtube --media media/llp --ledger llp.jsonl --dry-run
  python -m pipeline.acquire --manifest ave.parquet --source youtube --offsets balanced_train_segments.csv \\
      --offsets unbalanced_train_segments.csv --offsets eval_segments.csv --media media/ave --ledger ave.jsonl
  python -m pipeline.acquire --dataset ave --annotations annotations/ave
  python -m pipeline.acquire --manifest runs/demo/demo/manifest.parquet --source folder --from runs/demo/demo/media \\
      --media runs/demo/acquired --ledger runs/demo/ledger.jsonl
"""
SOURCES = ("youtube", "folder", "archive", "http")


def parser(description: str) -> argparse.ArgumentParser:
    """The parser; `description` is what `--help` says first."""
    made = argparse.ArgumentParser(
        prog="python -m pipeline.acquire",
        description=description,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", type=Path, help="made by pipeline.prepare")
    made.add_argument("--source", choices=SOURCES, help="where clips come from")
    made.add_argument(
        "--from",
        dest="origin",
        action="append",
        metavar="DIR|FILE|URL",
        help="folder, archive (may be given several times), list of ids and URLs, or URL with {source_id} or {clip_id}",
    )
    made.add_argument("--media", type=Path, help="folder of verified clips")
    made.add_argument("--ledger", type=Path, help="JSON lines file, one line per attempt; only ever appended")
    made.add_argument(
        "--offsets",
        type=Path,
        action="append",
        default=[],
        metavar="CSV",
        help="where clips lie in their videos: AudioSet's segment lists, UnAV's download_video.csv",
    )
    made.add_argument(
        "--retry",
        choices=RETRIES,
        default="transient",
        help="failures of earlier runs to try again (default: transient)",
    )
    made.add_argument("--dry-run", action="store_true", help="ask nobody; print what would be fetched, bytes and hours")
    made.add_argument("--summary", action="store_true", help="ask nobody; print what the ledger says of every clip")
    made.add_argument("--hygiene", type=Path, metavar="JSON", help="also write the hygiene report of all clips here")
    made.add_argument("--receipt", type=Path, help="JSON written last, if the run came to its end: counts, hashes")
    made.add_argument("--max-failed", type=int, metavar="N", help="exit 3 if more clips than N are missing at the end")
    _files(made.add_argument_group("files"))
    _manners(made.add_argument_group("manners"))
    annotations = made.add_argument_group("annotation files, instead of clips")
    annotations.add_argument("--dataset", help="ave, llp or unav100: bring its annotation files and check them")
    annotations.add_argument("--annotations", type=Path, metavar="DIR", help="folder to bring them to")
    return made


def _files(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--holds",
        choices=("auto", "clips", "videos"),
        default="auto",
        help="what the source's files are; auto compares their length with the clip's",
    )
    group.add_argument(
        "--keep-original",
        action="store_true",
        help="keep whole videos under full/ and cut while decoding, instead of encoding clips",
    )
    group.add_argument("--link", action="store_true", help="second names instead of copies of your own files")
    group.add_argument(
        "--need",
        choices=("both", "audio", "video", "any"),
        default="both",
        help="streams that a clip must have (default: both)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=0.5,
        metavar="S",
        help="by which a stream may end early or late (default: 0.5 s)",
    )


def _manners(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pause",
        type=float,
        metavar="S",
        help="between two downloads, plus up to half of it at random (default: youtube 8, http 1)",
    )
    group.add_argument("--rate", type=_size, metavar="BYTES", help="per second at most, such as 500K or 2M")
    group.add_argument("--concurrency", type=int, default=1, metavar="N", help="downloads at a time (default: 1)")
    group.add_argument("--tries", type=int, default=3, metavar="N", help="of one download within a run (default: 3)")
    group.add_argument(
        "--backoff",
        type=float,
        default=5.0,
        metavar="S",
        help="wait after a first failure; doubles with every further one (default: 5)",
    )
    group.add_argument("--timeout", type=float, default=30.0, metavar="S", help="longest silence of a server")
    group.add_argument("--longest", type=float, default=3600.0, metavar="S", help="longest time for one download")
    group.add_argument("--max-size", type=_size, default=2 << 30, metavar="BYTES", help="of one download (default: 2G)")
    group.add_argument("--max-height", type=int, default=480, metavar="PIXELS", help="of YouTube's video streams")
    group.add_argument(
        "--cookies",
        type=Path,
        metavar="FILE",
        help="Netscape format; kept in memory, never logged, never read from a browser. An account used "
        "for bulk fetching can be banned",
    )
    group.add_argument("--download-archive", type=Path, metavar="FILE", help="yt-dlp's own list; honoured and written")
    group.add_argument("--ignore-stop", action="store_true", help="do not wait as long as a site asked to stay away")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def usage_problem(arguments: argparse.Namespace) -> str:
    """What is wrong with the flags together, or ``."""
    if arguments.dataset or arguments.annotations:
        return "" if arguments.dataset and arguments.annotations else "--dataset and --annotations belong together"
    if missing := [name for name in ("manifest", "media", "ledger") if getattr(arguments, name) is None]:
        return "missing " + ", ".join(f"--{name}" for name in missing)
    if arguments.summary:
        return ""
    if arguments.source is None:
        return "missing --source"
    if arguments.source != "youtube" and not arguments.origin:
        return f"--source {arguments.source} needs --from"
    if arguments.source != "archive" and len(arguments.origin or []) > 1:
        return "--from can be given several times with --source archive only"
    for name, least in (("concurrency", 1), ("tries", 1), ("tolerance", 0), ("backoff", 0), ("timeout", 0.001)):
        if getattr(arguments, name) < least:
            return f"--{name} {getattr(arguments, name)}: must be at least {least}"
    if arguments.pause is not None and arguments.pause < 0:
        return f"--pause {arguments.pause}: must not be negative"
    return ""
