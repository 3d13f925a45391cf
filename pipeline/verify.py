"""Stage: a store against its own records; names what is damaged, lists what is missing, forgets damaged blocks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.checks import Damage, block_damages, folder_damages, key_damages, manifest_damages, uncounted
from pipeline.cluster import add_arguments, spread
from pipeline.manifest import Manifest
from pipeline.run import BROKE, DONE, TOO_MANY_FAILED, Progress, command, log, receipt, write_json
from pipeline.store import FeatureStore

EXAMPLE = """\
exit codes: 0 sound, 1 damaged (also after --forget, until extract has made the blocks again), 2 usage,
3 sound, but --complete was given and blocks are missing.

example:
  python -m pipeline.verify --store demo/features --manifest demo/manifest.parquet
  python -m pipeline.verify --store demo/features --forget     # then run extract again: it makes only those blocks
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.verify",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--store", required=True, type=Path)
    made.add_argument("--manifest", type=Path, help="also check that the store is of this manifest")
    made.add_argument("--key", action="append", metavar="NAME", help="only this feature; may be given several times")
    made.add_argument("--shallow", action="store_true", help="compare hashes only, do not read values")
    made.add_argument(
        "--forget", action="store_true", help="drop the records of damaged blocks, so extract redoes them"
    )
    made.add_argument("--sweep", action="store_true", help="remove what killed processes left over")
    made.add_argument("--complete", action="store_true", help="exit 3 if any block is missing")
    made.add_argument("--receipt", type=Path, help="JSON with what was found")
    add_arguments(made)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("verify"):
        return _verify(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    store = FeatureStore.open(arguments.store)
    keys = [store.key(name) for name in arguments.key] if arguments.key else store.keys()
    if arguments.sweep:
        log(f"swept {store.sweep()} left-over files and folders")
    found = list(folder_damages(store))
    if arguments.manifest:
        found += manifest_damages(store, Manifest.load(arguments.manifest))
    for key in keys:
        found += key_damages(store, key)
    items = [(arguments.store, key, block, not arguments.shallow) for key in keys for block, _ in store.blocks(key)]
    progress = Progress(len(items), "blocks")
    for damages in spread(_block, items, arguments.workers, arguments.scheduler):
        found += damages
        progress.add()
    progress.close()
    for damage in found:
        print(f"damaged  {damage}")
    missing = {key: store.missing(key) for key in keys}
    for key, spans in missing.items():
        blocks = len(list(store.blocks(key)))
        clips = sum(len(span) for span in spans)
        note = f"; {clips} clips: {_ranges(spans)}" if spans else ""
        print(f"{'missing' if spans else 'complete'}  {key}: {blocks - len(spans)} of {blocks} blocks committed{note}")
        if lost := uncounted(store, key):
            log(f"{key}: files without a record in blocks {lost}: they do not count, extract makes them again")
    forgotten = _forget(store, found) if arguments.forget else []
    if arguments.receipt:
        write_json(
            arguments.receipt,
            receipt(
                "verify",
                {"shallow": arguments.shallow, "keys": keys},
                store=store.facts,
                damaged=[str(damage) for damage in found],
                missing={key: [[span.start, span.stop] for span in spans] for key, spans in missing.items()},
                forgotten=forgotten,
            ),
        )
    if found:
        return BROKE
    return TOO_MANY_FAILED if arguments.complete and any(missing.values()) else DONE


def _block(path: Path, key: str, block: int, deep: bool) -> list[Damage]:
    return list(block_damages(FeatureStore.open(path), key, block, deep))


def _forget(store: FeatureStore, found: list[Damage]) -> list[str]:
    blocks = sorted({(damage.key, damage.block) for damage in found if damage.block is not None})
    for key, block in blocks:
        store.forget(key, block)
        log(f"forgot {key} block {block}; extract makes it again")
    return [f"{key}/{block}" for key, block in blocks]


def _ranges(spans: list[range]) -> str:
    """Joined ranges of rows, `0..255, 512..599`."""
    joined: list[list[int]] = []
    for span in spans:
        if joined and joined[-1][1] == span.start:
            joined[-1][1] = span.stop
        else:
            joined.append([span.start, span.stop])
    shown = [f"{start}..{stop - 1}" for start, stop in joined[:8]]
    return ", ".join(shown + [f"and {len(joined) - 8} more"] * (len(joined) > 8))


if __name__ == "__main__":
    sys.exit(main())
