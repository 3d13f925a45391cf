"""Stage: published feature files become a store whose keys say where they came from."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from pipeline.adoption import FORMATS, Published, Unusable, find
from pipeline.manifest import Manifest
from pipeline.run import DONE, TOO_MANY_FAILED, Progress, command, log, receipt, write_json
from pipeline.store import JOB_CLIPS, FeatureStore

EXAMPLE = """\
Formats: ave-h5 reads visual_feature.h5 and audio_feature.h5 (row i is clip i of the manifest); llp-npy reads
data/feats/* and data/CLIP, data/CLAP (one file per video id); unav-npy reads <id>_<kind>.npy in one folder.
Adopted features are called encoder:published and can be compared, trained on and exported like any other.

example (a folder that pipeline.export made is read like the published one):
  python -m pipeline.export --manifest demo/manifest.parquet --store demo/features --format ave-h5 --out demo/ave-h5
  python -m pipeline.adopt --manifest demo/manifest.parquet --format ave-h5 --from demo/ave-h5 --store demo/adopted
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.adopt",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path)
    made.add_argument("--format", required=True, choices=list(FORMATS))
    made.add_argument("--from", dest="source", required=True, type=Path, help="folder with the published files")
    made.add_argument("--store", required=True, type=Path, help="store to make or to continue")
    made.add_argument("--origin", default="", help="where the files were got from, such as a page; part of the key")
    made.add_argument("--dtype", choices=["float16", "float32", "float64"], default="float32", help="of the store")
    made.add_argument("--job-clips", type=int, default=JOB_CLIPS)
    made.add_argument("--max-failed", type=int, metavar="N", help="exit 3 if more clips than N have no rows")
    made.add_argument("--receipt", type=Path)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("adopt"):
        return _adopt(arguments)


def _adopt(arguments: argparse.Namespace) -> int:
    manifest = Manifest.load(arguments.manifest).check()
    found = find(arguments.format, arguments.source, manifest, arguments.origin, arguments.dtype)
    specs = [published.spec for published in found]
    store = FeatureStore.create(arguments.store, manifest, specs, arguments.job_clips)
    worst = 0
    for published in found:
        _fill(store, manifest, published)
        tally = Counter(store.outcomes(published.spec.key).values())
        worst = max(worst, len(manifest) - tally["ok"])
        print(f"{published.spec.key}: " + ", ".join(f"{count} {name}" for name, count in tally.most_common()))
    if arguments.receipt:
        outcomes = {spec.key: dict(Counter(store.outcomes(spec.key).values())) for spec in specs}
        write_json(
            arguments.receipt,
            receipt(
                "adopt",
                {"format": arguments.format, "origin": arguments.origin, "dtype": arguments.dtype},
                manifest=manifest.digest,
                features={spec.key: {"spec": spec.to_dict(), "outcomes": outcomes[spec.key]} for spec in specs},
            ),
        )
    if arguments.max_failed is not None and worst > arguments.max_failed:
        log(f"adopt: {worst} clips lack rows, --max-failed allows {arguments.max_failed}")
        return TOO_MANY_FAILED
    return DONE


def _fill(store: FeatureStore, manifest: Manifest, published: Published) -> None:
    key = published.spec.key
    progress = Progress(sum(len(span) for span in store.missing(key)), "clips")
    for block, span in store.blocks(key):
        if store.commit(key, block) is not None:
            continue
        writer = store.writer(key, block)
        for row in span:
            try:
                values = published.read(row, manifest.clips[row])
            except Unusable as error:
                writer.fail(row, error.outcome, str(error))
            else:
                writer.put(row, values, published.segments(values))
        writer.commit()
        progress.add(len(span))
    progress.close()


if __name__ == "__main__":
    sys.exit(main())
