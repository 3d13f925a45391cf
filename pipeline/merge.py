"""Stage: stores made on different machines become one, block by whole block; a conflict stops it before it begins."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.blocks import Scratch, held, scratch_path
from pipeline.checks import block_damages
from pipeline.folder import copy
from pipeline.layout import metadata_files
from pipeline.manifest import Manifest
from pipeline.run import BROKE, DONE, command, log, receipt, write_json
from pipeline.store import FeatureStore, StoreError

EXAMPLE = """\
A block is taken whole, with its commit record.  The same block in two stores must have the same files, else it is a
conflict and nothing is merged.  Damaged blocks are named and left out (exit code 1): make them again.

example:
  python -m pipeline.merge --manifest demo/manifest.parquet --into demo/all demo/features-a demo/features-b
"""


@dataclass(frozen=True)
class Offer:
    """A committed block of one of the stores."""

    store: FeatureStore
    key: str
    block: int

    @property
    def files(self) -> dict[str, str]:
        """Path -> SHA-256, as its record says."""
        return self.store.commit(self.key, self.block)["files"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.merge",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("sources", nargs="+", type=Path, metavar="STORE")
    made.add_argument("--into", required=True, type=Path, help="store to make or to continue")
    made.add_argument("--manifest", required=True, type=Path)
    made.add_argument("--receipt", type=Path, help="JSON with what was taken from where")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("merge"):
        return _merge(arguments)


def _merge(arguments: argparse.Namespace) -> int:
    manifest = Manifest.load(arguments.manifest).check()
    sources = [FeatureStore.open(path) for path in arguments.sources]
    _check_origin(sources, manifest, arguments.into)
    target = FeatureStore.create(arguments.into, manifest, [], sources[0].facts["job_clips"])
    for source in sources:
        for key in source:
            _plan_like(target, source, key)
    offers, damaged = _offers(sources)
    chosen = _choose(target, offers)
    taken: dict[str, int] = {}
    for offer in chosen:
        _take(target, offer)
        taken[str(offer.store.path)] = taken.get(str(offer.store.path), 0) + 1
    for source in sources:
        print(f"{source.path}: {taken.get(str(source.path), 0)} blocks taken")
    for key in target:
        missing = target.missing(key)
        print(f"{key}: {len(list(target.blocks(key))) - len(missing)} of {len(list(target.blocks(key)))} blocks")
    for line in damaged:
        log(f"left out: {line}")
    if arguments.receipt:
        write_json(
            arguments.receipt,
            receipt("merge", {"into": str(arguments.into)}, manifest=manifest.digest, taken=taken, damaged=damaged),
        )
    return BROKE if damaged else DONE


def _check_origin(sources: list[FeatureStore], manifest: Manifest, into: Path) -> None:
    """One manifest, one job size, one layout per key; lists every difference."""
    problems = []
    first = sources[0]
    for store in sources:
        if store.path.resolve() == into.resolve():
            problems.append(f"{store.path}: is the target itself")
        if store.facts["manifest"] != manifest.digest:
            problems.append(f"{store.path}: belongs to another manifest ({store.facts['dataset']})")
        if store.facts["job_clips"] != first.facts["job_clips"]:
            problems.append(f"{store.path}: planned for jobs of {store.facts['job_clips']} clips, not as {first.path}")
        for key in store:
            others = [other for other in sources if key in other.keys() and other.plan(key) != store.plan(key)]  # noqa: SIM118
            problems += [f"{key}: {store.path} and {other.path} have different layouts" for other in others[:1]]
    if problems:
        raise StoreError("\n  ".join(["cannot merge:", *problems]))


def _plan_like(target: FeatureStore, source: FeatureStore, key: str) -> None:
    """Give the target a key with the very metadata of the source, pseudo-labels' class names and captions included.

    Raises:
        StoreError: the target has the key in another layout.
    """
    if key in target.keys():  # noqa: SIM118
        if target.plan(key) != source.plan(key):
            raise StoreError(f"cannot merge: {key}: {target.path} and {source.path} have different layouts")
        return
    with held(target.path, key) as beside:
        for name in metadata_files(source.path, key):
            copy(source.path / name, beside / Path(*Path(name).parts[1:]))
        beside.chmod(0o755)
        os.replace(beside, target.path / key)


def _offers(sources: list[FeatureStore]) -> tuple[list[Offer], list[str]]:
    """Sound committed blocks, and one sentence for each damaged one."""
    offers, damaged = [], []
    for store in sources:
        for key in store:
            for block, _ in store.blocks(key):
                if found := [str(damage) for damage in block_damages(store, key, block)]:
                    damaged += [f"{store.path}: {line}" for line in found]
                elif store.is_done(key, block):
                    offers.append(Offer(store, key, block))
    return offers, damaged


def _choose(target: FeatureStore, offers: list[Offer]) -> list[Offer]:
    """The first offer of every block that the target lacks.

    Raises:
        StoreError: two stores, or a store and the target, hold different files for one block.
    """
    known: dict[tuple[str, int], tuple[dict[str, str], Path]] = {}
    for key in target:
        for block, _ in target.blocks(key):
            if target.is_done(key, block):
                known[key, block] = target.commit(key, block)["files"], target.path
    chosen, conflicts = [], []
    for offer in offers:
        files = offer.files
        have = known.setdefault((offer.key, offer.block), (files, offer.store.path))
        if have[0] != files:
            conflicts.append(f"{offer.key} block {offer.block}: {have[1]} and {offer.store.path} hold different rows")
        elif have[1] == offer.store.path:
            chosen.append(offer)
    if conflicts:
        advice = "keep one: python -m pipeline.verify names blocks, removing a commit record drops its block"
        raise StoreError("\n  ".join([f"{len(conflicts)} conflicts, nothing was merged ({advice}):", *conflicts[:20]]))
    return chosen


def _take(target: FeatureStore, offer: Offer) -> None:
    scratch = Scratch(scratch_path(target.path, offer.key, offer.block))
    try:
        copied = {}
        for name in offer.files:
            copied[name] = scratch.path / name.replace("/", "-")
            copy(offer.store.path / name, copied[name])
        target.install(offer.key, offer.block, copied, offer.store.commit(offer.key, offer.block))
    finally:
        scratch.release()


if __name__ == "__main__":
    sys.exit(main())
