"""Stage: captioned clips in, weights of small teachers out, so that pseudo-labels mean something offline."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from pipeline.allocator import keep_freed_memory
from pipeline.manifest import Manifest
from pipeline.run import DONE, UsageError, check_numbers, command, log, receipt, sha256_of, write_json, write_torch

EXAMPLE = """\
OUT gets <encoder>.pt, a checkpoint in the published key format for `extract --weights <encoder>=PATH`, <encoder>.json
with its SHA-256 and how it was trained, and, last, teach.json.  The same seed gives the same files on one machine.

example:
  python -m pipeline.prepare --dataset demo --splits teacher --media demo/media --out demo/teacher.parquet
  python -m pipeline.teach --manifest demo/teacher.parquet --media demo/media --out demo/teachers
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.teach",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="with captions, such as the demo's split teacher")
    made.add_argument("--media", required=True, type=Path, help="folder of its clips")
    made.add_argument("--encoders", default="clip-tiny,clap-tiny", help="which to train (default both)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--steps", type=int, help="instead of the usual number")
    made.add_argument("--out", required=True, type=Path, help="folder of the checkpoints")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("teach"):
        return _teach(arguments)


def _teach(arguments: argparse.Namespace) -> int:
    from pipeline.teaching import LESSONS

    keep_freed_memory()
    check_numbers(arguments, steps=1)
    names = [name.strip() for name in arguments.encoders.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--encoders {arguments.encoders!r}: give each name once")
    if strange := [name for name in names if name not in LESSONS]:
        raise UsageError(f"--encoders {', '.join(strange)}: only {', '.join(LESSONS)} are small enough to be taught")
    if not arguments.media.is_dir():
        raise FileNotFoundError(f"--media {arguments.media}: no such folder")
    manifest = Manifest.load(arguments.manifest).check()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "teach.json").unlink(missing_ok=True)
    made = {name: _one(arguments, manifest, name) for name in names}
    options = {"encoders": names, "seed": arguments.seed, "steps": arguments.steps}
    write_json(arguments.out / "teach.json", receipt("teach", options, manifest=manifest.digest, teachers=made))
    for record in made.values():
        found = ", ".join(f"{key} {value:.1f}" for key, value in record["training"]["held_out"].items())
        print(
            f"{arguments.out / record['weights']['file']}: {found} on {record['training']['clips']['held_out']} clips"
        )
    return DONE


def _one(arguments: argparse.Namespace, manifest: Manifest, name: str) -> dict:
    """Train and save one teacher; returns its record."""
    from extractors.base import build
    from extractors.recipes import recipe
    from pipeline.teaching import LESSONS, prepared, teach

    lesson = LESSONS[name] if arguments.steps is None else dataclasses.replace(LESSONS[name], steps=arguments.steps)
    rows = prepared(manifest, arguments.media, build(recipe(name).spec), lesson.hop_s)
    log(f"{name}: {len(rows.clips)} captioned clips, {len(rows.refused)} refused")
    pupil, record = teach(
        name,
        rows,
        arguments.seed,
        lesson,
        lambda step, loss: log(f"{name}: step {step}/{lesson.steps}, loss {loss:.3f}"),
    )
    path = arguments.out / f"{name}.pt"
    write_torch(path, {key: value.clone() for key, value in pupil.published().items()})
    made = {
        "weights": {
            "name": f"{name}-seed{arguments.seed}",
            "file": path.name,
            "sha256": sha256_of(path),
            "size_bytes": path.stat().st_size,
            "licence_weights": "CC0-1.0: trained on generated clips",
        },
        "training": record
        | {"seed": arguments.seed, "lesson": dataclasses.asdict(lesson), "manifest": manifest.digest},
    }
    write_json(arguments.out / f"{name}.json", made)
    return made


if __name__ == "__main__":
    sys.exit(main())
