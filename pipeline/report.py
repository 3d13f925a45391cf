"""Stage: a run folder to one HTML page that opens anywhere, offline: coverage, scores, clips to look at, what ran."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.run import DONE, command, log

EXAMPLE = """\
example:
  python -m pipeline.prepare --dataset demo --media runs/demo/media --out runs/demo/manifest.parquet
  python -m pipeline.report --run runs/demo --out runs/demo/report.html
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.report",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--run", required=True, type=Path, metavar="DIR", help="folder of a run; every part is optional")
    made.add_argument("--out", required=True, type=Path, metavar="HTML", help="page to write")
    made.add_argument("--media", type=Path, metavar="DIR", help="folder of clips (default DIR/media)")
    made.add_argument("--clips", type=int, default=6, metavar="N", help="clips to show (default %(default)s)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the page and print where it is.  Exit code 0 done, 1 no such run, 2 usage."""
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.clips < 0:
        made.error(f"--clips {arguments.clips}: a number of clips, 0 or more")
    with command("report"):
        from pipeline.reporting.gather import open_run
        from pipeline.reporting.page import render

        run = open_run(arguments.run, arguments.media)
        page = render(run, arguments.clips).encode("utf-8", errors="replace")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.partial")
        partial.write_bytes(page)
        os.replace(partial, arguments.out)
    for note in run.notes:
        log(f"report: {note}")
    print(f"report      {arguments.out} ({len(page) / 1e6:.1f} MB)")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
