"""Write the tables of docs/performance.md from the benchmarks' JSON files, so that no number is typed by hand.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being the file's name without `.json`.  With the table
come the command that measured it and the machine; figures are linked in the page itself.

    python benchmarks/tables.py benchmarks/results/*.json
    python benchmarks/tables.py benchmarks/results/*.json --check    # exit 1 if the page says something else
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure

PAGE = measure.ROOT / "docs" / "performance.md"
#: Scripts whose `table` may be called.
BENCHMARKS = ("end_to_end", "ceiling", "decoding", "passes", "memory", "allocator", "precision", "startup")


def section(report: Mapping[str, Any]) -> str:
    """Table, command and machine of one report.

    Raises:
        ValueError: not a report of a benchmark that has tables.
    """
    name = report.get("benchmark")
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is none of {', '.join(BENCHMARKS)}")
    made = importlib.import_module(f"benchmarks.{name}").table(report)
    return f"{made}\n\n`{report['command'].strip()}` on {machine(report['environment'])}."


def machine(environment: Mapping[str, Any]) -> str:
    """One line: processor, cores, accelerator, versions, commit and load when it began."""
    versions = environment["versions"]
    parts = [f"{environment['cpu']}, {environment['cores']} cores"]
    if environment.get("gpu"):
        parts.append(environment["gpu"])
    parts += [f"{name} {versions[name]}" for name in ("torch", "openvino", "av") if name in versions]
    parts.append(f"commit {environment['commit']}")
    parts.append(f"load {environment['load'][0]:g} when it began" if "load" in environment else "")
    return ", ".join(part for part in parts if part)


def filled(page: str, sections: Mapping[str, str]) -> str:
    """The page with these sections replaced.

    Raises:
        ValueError: a section has no place in the page.
    """
    for name, text in sections.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        page, count = pattern.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if count != 1:
            raise ValueError(f"the page has {count} places <!-- {name} --> ... <!-- /{name} -->, one is needed")
    return page


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="JSON files; those of other benchmarks are passed over")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    arguments = parser.parse_args(argv)
    sections = {}
    for path in arguments.reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("benchmark") in BENCHMARKS:
            sections[path.stem] = section(report)
        else:
            measure.log(f"{path.name}: has no table in the page")
    old = arguments.page.read_text(encoding="utf-8")
    new = filled(old, sections)
    if arguments.check:
        return 0 if new == old else 1
    arguments.page.write_text(new, encoding="utf-8")
    print(f"{arguments.page.name}: {', '.join(sections)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
