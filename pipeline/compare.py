"""Stage: how close two stores are, feature by feature: row cosine, largest difference, missing clips."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.comparison import changed_fields, distance
from pipeline.run import DONE, TOO_MANY_FAILED, command, write_json
from pipeline.store import FeatureStore, StoreError

EXAMPLE = """\
Features are matched by key, then by encoder:recipe name, then by encoder; --pair A=B matches any two by hand.

example:
  python -m pipeline.compare demo/features demo/features-again --at-least 0.999
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.compare",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("a", type=Path, metavar="A", help="feature store")
    made.add_argument("b", type=Path, metavar="B", help="feature store")
    made.add_argument("--pair", action="append", default=[], metavar="A=B", help="compare feature A with feature B")
    made.add_argument(
        "--at-least",
        type=float,
        metavar="C",
        help="exit 3 if a 5th percentile of row cosine is below C, or a feature has no counterpart",
    )
    made.add_argument("--out", type=Path, help="JSON with all numbers")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with command("compare"):
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    store_a, store_b = FeatureStore.open(arguments.a), FeatureStore.open(arguments.b)
    pairs = _pairs(store_a, store_b, arguments.pair)
    alone = {} if arguments.pair else {"A": _unmatched(store_a, pairs, 0), "B": _unmatched(store_b, pairs, 1)}
    print(
        f"{'feature':40} {'clips':>7} {'rows':>8} {'cos p50':>9} {'cos p5':>9} {'largest':>9} "
        f"{'only A':>7} {'only B':>7}"
    )
    results, low = [], False
    for key_a, key_b in pairs:
        found = distance(store_a, key_a, store_b, key_b)
        why = changed_fields(store_a.spec(key_a).to_dict(), store_b.spec(key_b).to_dict())
        results.append({"a": key_a, "b": key_b, "why": why} | found.to_dict())
        name = key_a if key_a == key_b else f"{key_a} / {key_b}"
        print(
            f"{name:40} {found.clips:7d} {found.rows:8d} {found.cosine_median:9.6f} {found.cosine_p5:9.6f} "
            f"{found.largest:9.3g} {len(found.missing_b):7d} {len(found.missing_a):7d}"
        )
        for line in why:
            print(f"  {line}")
        if found.different_lengths:
            print(f"  {found.different_lengths} clips have different numbers of rows")
        # not >=, so that NaN (nothing to compare) is low
        low |= arguments.at_least is not None and not found.cosine_p5 >= arguments.at_least
    for side, keys in alone.items():
        for key in keys:
            print(f"{key:40} in {side} only, or with several counterparts; --pair A=B compares it")
            low |= arguments.at_least is not None
    if arguments.out:
        write_json(arguments.out, {"a": store_a.facts, "b": store_b.facts, "features": results, "not_compared": alone})
    return TOO_MANY_FAILED if low else DONE


def _unmatched(store: FeatureStore, pairs: list[tuple[str, str]], side: int) -> list[str]:
    return [key for key in store if key not in {pair[side] for pair in pairs}]


def _pairs(store_a: FeatureStore, store_b: FeatureStore, by_hand: list[str]) -> list[tuple[str, str]]:
    if by_hand:
        split = [text.partition("=") for text in by_hand]
        return [(store_a.key(one), store_b.key(two or one)) for one, _, two in split]
    keys_a, keys_b = store_a.keys(), store_b.keys()
    pairs = []
    for key in keys_a:
        spec = store_a.spec(key)
        same = [key] if key in keys_b else []
        same = same or [other for other in keys_b if store_b.spec(other).name == spec.name]
        same = same or [other for other in keys_b if store_b.spec(other).encoder == spec.encoder]
        if len(same) == 1:
            pairs.append((key, same[0]))
    if not pairs:
        raise StoreError(
            f"no feature in common. {store_a.path}: {', '.join(keys_a) or 'none'}; {store_b.path}: "
            f"{', '.join(keys_b) or 'none'}. Match two by hand: --pair A=B"
        )
    return pairs


if __name__ == "__main__":
    sys.exit(main())
