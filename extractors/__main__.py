"""List every encoder and recipe: `python -m extractors [NAME]`."""

from __future__ import annotations

import argparse
import json
import sys

from extractors.base import build, names
from extractors.recipes import Recipe, recipe


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m extractors",
        description="Encoders and recipes: shape and number of rows, parameters, checkpoint, licences.",
        epilog="example:\n  python -m extractors vggish:ave2018",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="show one recipe whole: every field, source, what we had to choose")
    chosen = parser.parse_args(argv).name
    if chosen is not None:
        try:
            print(_whole(recipe(chosen)))
        except ValueError as error:
            print(f"extractors: {error}", file=sys.stderr)
            return 2
        return 0
    print(
        f"{'name':26} {'modality':8} {'rows':>9} {'row shape':>10} {'parameters':>12}  "
        "checkpoint (licence of the code; of the weights)"
    )
    for name in names():
        print(_line(recipe(name)))
    return 0


def _rows(entry: Recipe) -> str:
    """How many rows: fixed, or so many a second."""
    grid = entry.spec.grid
    return f"{grid.count} a clip" if grid.count is not None else f"{1 / grid.hop_s:g} a s"


def _line(entry: Recipe) -> str:
    spec = entry.spec
    try:
        parameters = f"{build(spec).parameters:,}"
    except ImportError as error:
        parameters = str(error)
    record = entry.weights
    weights = f"{record.file} ({record.licence_code}; {record.licence_weights})" if record else "none published"
    shape = "x".join(map(str, spec.shape))
    return f"{entry.name:26} {spec.modality:8} {_rows(entry):>9} {shape:>10} {parameters:>12}  {weights}"


def _whole(entry: Recipe) -> str:
    lines = [entry.name, f"source: {entry.source}"]
    lines += [f"our choice: {choice}" for choice in entry.choices]
    if entry.weights:
        record = entry.weights
        lines.append(
            f"weights: {record.file}, SHA-256 {record.sha256 or 'not published'}, {record.size_bytes or '?'} bytes"
        )
        lines.append(f"  {record.url or record.page}")
        lines.append(
            f"  licence of the code {record.licence_code}, of the weights {record.licence_weights}. {record.note}"
        )
    lines.append(json.dumps(entry.spec.to_dict(), indent=1))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
