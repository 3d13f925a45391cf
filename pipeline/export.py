"""Stage: features and labels in the layouts that published training code reads, byte for byte."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cluster import add_arguments
from pipeline.exporting import FORMATS, writer
from pipeline.exporting.request import Export, Request
from pipeline.folder import RECORD, describe, replaced
from pipeline.manifest import Manifest
from pipeline.run import DONE, TOO_MANY_FAILED, UsageError, command, log, receipt, write_json
from pipeline.store import FeatureStore

EXAMPLE = """\
The folder appears when it is complete; export.json in it says what it holds, missing.json which rows have no features.

example:
  python -m pipeline.export --manifest demo/manifest.parquet --store demo/features --format ave-h5 --out demo/ave-h5
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.export",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path)
    made.add_argument("--store", type=Path, help="feature store (dgsct needs none)")
    made.add_argument("--format", required=True, choices=list(FORMATS))
    made.add_argument("--out", required=True, type=Path, help="folder to make")
    made.add_argument("--labels", type=Path, help="pseudo-labels, made by pipeline.pseudolabel")
    made.add_argument(
        "--feature", action="append", default=[], metavar="ROLE=NAME", help="which feature plays a role of the layout"
    )
    made.add_argument("--dtype", choices=["float32", "float64"], help="of features; each layout has its own default")
    made.add_argument(
        "--missing",
        default="keep",
        choices=["keep", "renumber"],
        help="clips without features: keep their row, zeros in it, or leave them out of all files together",
    )
    made.add_argument("--annotations", type=Path, help="folder with the published annotation files, copied as they are")
    made.add_argument("--media", type=Path, help="folder of clips (dgsct)")
    made.add_argument("--background-manifest", type=Path, help="clips without event, for AVE's weak setting")
    made.add_argument("--background-store", type=Path, help="their features")
    made.add_argument("--overwrite", action="store_true", help="replace an earlier export in --out")
    made.add_argument("--max-missing", type=int, metavar="N", help="exit 3 if more rows than N have no features")
    add_arguments(made)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("export"):
        return _export(arguments)


def _export(arguments: argparse.Namespace) -> int:
    if (arguments.background_manifest is None) != (arguments.background_store is None):
        raise UsageError("--background-manifest and --background-store go together")
    chosen = dict(_pair(text) for text in arguments.feature)
    manifest = Manifest.load(arguments.manifest).check()
    store = FeatureStore.open(arguments.store) if arguments.store else None
    background = None
    if arguments.background_store:
        background = (Manifest.load(arguments.background_manifest), FeatureStore.open(arguments.background_store))
    with replaced(arguments.out, arguments.overwrite) as folder:
        request = Request(
            manifest,
            store,
            folder,
            chosen,
            arguments.labels,
            arguments.dtype,
            arguments.missing,
            arguments.annotations,
            arguments.media,
            background,
            arguments.workers,
            arguments.scheduler,
        )
        made: Export = writer(arguments.format)(request)
        made.notes += _path_notes(arguments.format, arguments.out)
        write_json(
            folder / "missing.json", {"policy": arguments.missing, "rows": made.missing, "dropped": made.dropped}
        )
        write_json(folder / RECORD, _record(arguments, manifest, store, made, folder))
    for note in made.notes:
        log(f"note: {note}")
    clips = {entry["id"] for entry in made.missing}
    what = "left out" if made.dropped else made.kept
    print(f"{arguments.format}: {arguments.out}; {len(clips)} clips without features" + (f", {what}" if clips else ""))
    if arguments.max_missing is not None and len(clips) > arguments.max_missing:
        log(f"export: {len(clips)} clips without features, --max-missing allows {arguments.max_missing}")
        return TOO_MANY_FAILED
    return DONE


def _pair(text: str) -> tuple[str, str]:
    role, separator, name = text.partition("=")
    if not separator or not role or not name:
        raise UsageError(f"--feature {text!r}: write ROLE=NAME, such as visual=vgg19:ave2018")
    return role, name


def _path_notes(layout: str, out: Path) -> list[str]:
    """VALOR and MM-CSE choose their input widths by the text of the path."""
    found = [text for text in ("CLAP", "CLIP") if text in str(out.absolute())]
    if layout != "llp-npy" or not found:
        return []
    return [
        f"the path {out.absolute()} contains {' and '.join(found)}: VALOR and MM-CSE take 768-wide inputs for any "
        "folder whose path does; run them inside the folder with relative paths, or choose another --out"
    ]


def _record(
    arguments: argparse.Namespace, manifest: Manifest, store: FeatureStore | None, made: Export, folder: Path
) -> dict:
    return receipt(
        "export",
        {"format": arguments.format, "dtype": arguments.dtype, "missing": arguments.missing},
        dataset=manifest.dataset,
        manifest=manifest.digest,
        features={role: store.spec(key).to_dict() | {"key": key} for role, key in made.features.items() if store},
        arrays=made.arrays,
        missing=len(made.missing),
        dropped=len(made.dropped),
        notes=made.notes,
        folders=describe(folder),
    )


if __name__ == "__main__":
    sys.exit(main())
