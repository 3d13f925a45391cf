"""Stage: published feature files become a store whose keys say where they came from."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.adoption import FORMATS, Published, Reader, Unusable, find
from pipeline.cluster import add_arguments, groups, spread
from pipeline.manifest import Clip, Manifest
from pipeline.run import DONE, TOO_MANY_FAILED, Progress, command, log, receipt, write_json
from pipeline.store import JOB_CLIPS, BlockWriter, FeatureStore

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
    add_arguments(made)
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
    worst, features = 0, {}
    for published in found:
        key = published.spec.key
        _fill(store, manifest, published, arguments.workers, arguments.scheduler)
        tally, notes = Counter(store.outcomes(key).values()), store.notes(key)
        worst = max(worst, len(manifest) - tally["ok"])
        features[key] = {"spec": published.spec.to_dict(), "outcomes": dict(tally), "cut": len(notes)}
        print(f"{key}: " + ", ".join(f"{count} {name}" for name, count in tally.most_common()))
        if notes:
            print(f"{key}: {len(notes)} clips cut to the manifest's length, such as {next(iter(notes))}")
    if arguments.receipt:
        write_json(
            arguments.receipt,
            receipt(
                "adopt",
                {"format": arguments.format, "origin": arguments.origin, "dtype": arguments.dtype},
                manifest=manifest.digest,
                features=features,
            ),
        )
    if arguments.max_failed is not None and worst > arguments.max_failed:
        log(f"adopt: {worst} clips lack rows, --max-failed allows {arguments.max_failed}")
        return TOO_MANY_FAILED
    return DONE


def _fill(store: FeatureStore, manifest: Manifest, published: Published, workers: int, scheduler: str | None) -> None:
    """Dask workers read and check the published files; this process writes block after block."""
    key = published.spec.key
    spans = store.missing(key)
    progress = Progress(sum(map(len, spans)), "clips")
    jobs = (
        (published.reader, [(row, manifest.clips[row]) for row in rows])
        for span in spans
        for rows in _parts(store, key, span)
    )
    results = spread(read, jobs, workers, scheduler)
    for span in spans:
        writer = store.writer(key, span.start // store.plan(key).block_clips)
        for rows in _parts(store, key, span):
            for row, values in zip(rows, next(results), strict=True):
                _put(writer, row, values, published, store.plan(key).segments)
        writer.commit()
        progress.add(len(span))
    progress.close()


def _parts(store: FeatureStore, key: str, span: range) -> Iterator[range]:
    return (span[part.start : part.stop] for part in groups(len(span), store.clip_bytes(key)))


def read(reader: Reader, clips: list[tuple[int, Clip]]) -> list[np.ndarray | Unusable]:
    """On a Dask worker: rows of some clips, or why there are none."""
    return list(reader.read(clips))


def _put(writer: BlockWriter, row: int, values: np.ndarray | Unusable, published: Published, most_rows: int) -> None:
    if isinstance(values, Unusable):
        writer.fail(row, values.outcome, str(values))
        return
    if len(values) > most_rows:
        writer.note(row, f"{len(values)} rows in the file, {most_rows} fit into the manifest's length")
        values = values[:most_rows]
    writer.put(row, values, published.segments(values))


if __name__ == "__main__":
    sys.exit(main())
