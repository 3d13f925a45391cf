"""Stage: freeze manifest, store and ledger with hashes, a card and Croissant metadata; check and compare releases."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.checks import damages, manifest_damages
from pipeline.folder import copy, replaced
from pipeline.manifest import Manifest
from pipeline.releasing import contents
from pipeline.releasing.card import card
from pipeline.releasing.coverage import coverage, licences
from pipeline.releasing.croissant import croissant
from pipeline.releasing.difference import differences, load_record
from pipeline.run import BROKE, DONE, TOO_MANY_FAILED, command, log, versions, write_json
from pipeline.store import FeatureStore, StoreError

EXAMPLE = """\
exit codes: build 0 done, 1 broke; verify 0 sound, 1 not; diff 0 the same, 3 different.

example:
  python -m pipeline.release build --manifest demo/manifest.parquet --store demo/features --out demo/release
  python -m pipeline.release verify demo/release --media demo/media --sample 3
  python -m pipeline.release diff demo/release demo/release
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.release",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = made.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="make a release")
    build.add_argument("--manifest", required=True, type=Path)
    build.add_argument("--store", required=True, type=Path)
    build.add_argument("--out", required=True, type=Path, help="folder to make")
    build.add_argument("--ledger", type=Path, help="what became of every clip, made by acquire; file or folder")
    build.add_argument("--labels", type=Path, help="pseudo-labels; folder")
    build.add_argument("--receipts", type=Path, help="receipts of the stages; file or folder")
    build.add_argument("--date", help="of publication, YYYY-MM-DD, for Croissant")
    build.add_argument("--hard-links", action="store_true", help="share the store's files instead of copying them")
    build.add_argument("--partial", action="store_true", help="allow blocks that are not done")
    build.add_argument("--overwrite", action="store_true", help="replace an earlier release in --out")
    verify = verbs.add_parser("verify", help="check every hash; with --media make random clips again")
    verify.add_argument("release", type=Path)
    verify.add_argument("--media", type=Path, help="folder of clips")
    verify.add_argument("--sample", type=int, default=5, metavar="N", help="clips to make again (default 5)")
    verify.add_argument("--seed", default="", help="chooses the clips; default the release id")
    verify.add_argument(
        "--weights",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a checkpoint that some features were made with, found by its hash; may be given several times; "
        "others are the published ones",
    )
    verify.add_argument("--at-least", type=float, default=0.9999, metavar="C", help="smallest row cosine allowed")
    diff = verbs.add_parser("diff", help="what changed between two releases, and why")
    diff.add_argument("a", type=Path)
    diff.add_argument("b", type=Path)
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command(f"release {arguments.verb}"):
        return {"build": _build, "verify": _verify, "diff": _diff}[arguments.verb](arguments)


def _build(arguments: argparse.Namespace) -> int:
    manifest = Manifest.load(arguments.manifest).check()
    store = FeatureStore.open(arguments.store)
    _check_inputs(manifest, store, arguments.partial)
    with replaced(arguments.out, arguments.overwrite, contents.RECORD) as folder:
        contents.copy_store(store, folder / "store", arguments.hard_links)
        copy(arguments.manifest, folder / "manifest.parquet")
        for name in ("ledger", "labels", "receipts"):
            if source := getattr(arguments, name):
                contents.copy_tree(source, folder / name)
        record = _describe(folder, manifest, store, arguments.date)
    print(f"{record['id']}{' (demo)' if record['demo'] else ''}: {arguments.out}, {record['store']['bytes']:,} bytes")
    for reason in record["demo_reasons"]:
        log(f"this is a demo: {reason}")
    return DONE


def _check_inputs(manifest: Manifest, store: FeatureStore, partial: bool) -> None:
    problems = [str(damage) for damage in manifest_damages(store, manifest)]
    if not store.keys():
        problems.append(f"{store.path}: holds no feature")
    for key in store:
        if (missing := store.missing(key)) and not partial:
            clips = sum(len(span) for span in missing)
            problems.append(f"{key}: {clips} clips are not done; finish extract, or pass --partial")
    if problems:
        raise StoreError("\n  ".join(["cannot release:", *problems]))


def _describe(folder: Path, manifest: Manifest, store: FeatureStore, date: str | None) -> dict[str, Any]:
    """Everything that is derived: specs, coverage, licences, hashes, id, card, metadata, and the record, last."""
    specs = {key: store.spec(key) for key in store}
    covered, stated = coverage(manifest, store), licences(manifest, specs)
    write_json(folder / "specs.json", {key: spec.to_dict() for key, spec in specs.items()})
    write_json(folder / "coverage.json", covered)
    write_json(folder / "licences.json", stated)
    found = contents.hashes(folder)
    reasons = _demo_reasons(manifest, specs)
    record = {
        "id": contents.release_id(manifest.dataset, found),
        "dataset": manifest.dataset,
        "demo": bool(reasons),
        "demo_reasons": reasons,
        "manifest": manifest.digest,
        "clips": len(manifest),
        "specs": {key: spec.to_dict() for key, spec in specs.items()},
        "licences": stated,
        "store": contents.total_bytes(folder),
        "made_with": versions(),
    }
    (folder / "README.md").write_text(card(record, manifest, covered, stated), encoding="utf-8")
    write_json(folder / "croissant.json", croissant(record, manifest, stated, found, date))
    contents.write_sums(folder, contents.hashes(folder))
    write_json(folder / contents.RECORD, record)
    return record


def _demo_reasons(manifest: Manifest, specs: dict) -> list[str]:
    reasons = []
    if manifest.dataset == "demo":
        reasons.append("Its clips are generated.")
    if random := [key for key, spec in specs.items() if spec.random_weights]:
        reasons.append(f"Random weights: {', '.join(random)}.")
    return reasons


def _verify(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.release
    if arguments.media and not arguments.media.is_dir():
        raise FileNotFoundError(f"--media {arguments.media}: no such folder")
    record = load_record(folder)
    problems = _hash_problems(folder, record)
    manifest = Manifest.load(folder / "manifest.parquet")
    store = FeatureStore.open(folder / "store")
    problems += [str(damage) for damage in (*manifest_damages(store, manifest), *damages(store))]
    problems += _record_problems(folder, record, manifest, store)
    if arguments.media and not problems:
        problems += _make_again(arguments, record, manifest, store)
    for problem in problems:
        print(f"wrong  {problem}")
    if not problems:
        print(f"{record['id']}: sound{' (demo)' if record['demo'] else ''}")
    return BROKE if problems else DONE


def _hash_problems(folder: Path, record: dict[str, Any]) -> list[str]:
    stated, found = contents.read_sums(folder), contents.hashes(folder)
    problems = [f"{name}: missing" for name in stated if name not in found]
    problems += [f"{name}: not part of the release" for name in found if name not in stated]
    problems += [f"{name}: differs from SHA256SUMS" for name in found if stated.get(name, found[name]) != found[name]]
    if (made := contents.release_id(record["dataset"], stated)) != record["id"]:
        problems.append(f"release.json: the id is {record['id']}, the hashes give {made}")
    return problems


def _record_problems(folder: Path, record: dict[str, Any], manifest: Manifest, store: FeatureStore) -> list[str]:
    """What the record says against the files that it is about: it has no hash of its own."""
    reasons = _demo_reasons(manifest, {key: store.spec(key) for key in store})
    found = {
        "dataset": manifest.dataset,
        "demo": bool(reasons),
        "demo_reasons": reasons,
        "manifest": manifest.digest,
        "clips": len(manifest),
        "specs": {key: store.spec(key).to_dict() for key in store},
        "licences": _json(folder / "licences.json"),
        "store": contents.total_bytes(folder),
    }
    return [
        f"release.json: {name} is {_short(record.get(name))}, the files say {_short(value)}"
        for name, value in found.items()
        if record.get(name) != value
    ]


def _json(path: Path) -> Any:
    """Content of a file of the release; None if it is not there or damaged, which its hash tells."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _make_again(
    arguments: argparse.Namespace, record: dict[str, Any], manifest: Manifest, store: FeatureStore
) -> list[str]:
    from pipeline.releasing.again import encoders, extract_again, sample

    loaded, problems = encoders(store, arguments.weights)
    rows = sample(manifest, store, arguments.sample, arguments.seed or record["id"])
    for again in extract_again(manifest, store, loaded, rows, arguments.media):
        line = f"{again.clip_id} {again.key}: cosine {again.cosine:.6f}, largest difference {again.largest:.3g}"
        if again.cosine < arguments.at_least:
            problems.append(f"{line} {again.note}".rstrip())
        else:
            print(f"again  {line}")
    return problems


def _diff(arguments: argparse.Namespace) -> int:
    found = list(differences(arguments.a, arguments.b))
    for line in found:
        print(line)
    if not found:
        print(f"the same: {json.loads((arguments.a / contents.RECORD).read_text())['id']}")
    return TOO_MANY_FAILED if found else DONE


if __name__ == "__main__":
    sys.exit(main())
