"""The card of a release: what a person reads first, in Markdown."""

from __future__ import annotations

from typing import Any

from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING

DEMO = (
    "> **This is a demo.** {why} The numbers below mean nothing about the dataset or about any encoder. "
    "Do not train on it, do not compare with it, do not cite it.\n"
)


def card(record: dict[str, Any], manifest: Manifest, covered: dict[str, Any], licences: dict[str, Any]) -> str:
    """Markdown; the same inputs give the same text."""
    facts = manifest.facts
    parts = [f"# {record['id']}\n"]
    if record["demo"]:
        parts.append(DEMO.format(why=" ".join(record["demo_reasons"])))
    parts.append(f"Features of {facts.get('title', manifest.dataset)}.\n")
    parts.append(
        _table(
            ("", ""),
            [
                ("dataset", manifest.dataset),
                ("task", facts.get("task", "not stated")),
                ("clips", f"{len(manifest):,} of {len({clip.source_id for clip in manifest.clips}):,} videos"),
                ("classes", str(len(manifest.classes))),
                ("manifest", f"`{manifest.digest}`"),
                ("store", f"{record['store']['files']:,} files, {record['store']['bytes']:,} bytes"),
                ("citation of the dataset", str(facts.get("citation", "unknown")).strip()),
                ("page of the dataset", str(facts.get("page", "unknown"))),
            ],
        )
    )
    parts.append("## Features\n")
    rows = []
    for key, spec in record["specs"].items():
        shape = " x ".join(map(str, spec["shape"])) or "scalar"
        rows.append((f"`{key}`", spec["layer"], f"{shape} {spec['dtype']}", spec["precision"], f"`{spec['weights']}`"))
    parts.append(_table(("key", "layer", "row", "precision", "weights"), rows))
    for key, spec in record["specs"].items():
        steps = "; ".join([*spec["preprocess"], *(f"then {step}" for step in spec["postprocess"])]) or "none stated"
        parts.append(f"- `{key}`: {steps}")
    parts.append("\n## Coverage\n")
    for key, entry in covered.items():
        parts.append(f"### `{key}`\n")
        parts.append(_counts("split", entry["splits"]))
        lost = [(name, MEANING[name], str(n)) for name, n in entry["outcomes"].items() if name != "ok"]
        if lost:
            parts.append(_table(("clips without rows", "why", "number"), lost))
        if entry["classes"]:
            parts.append(_counts("class", entry["classes"]))
    parts.append("## Licences\n")
    rows = [(name, str(licences[name])) for name in ("this code", "annotations", "media")]
    for key, entry in licences["features"].items():
        rows += [(f"code of `{key}`", entry["code"]), (f"weights of `{key}`", entry["weights"])]
    parts.append(_table(("of", "licence"), rows))
    parts.append(
        "`unknown` means that nobody states one, not that there is none.  Source media are not part of this.\n"
    )
    parts.append("## Checking and reading\n")
    parts.append(
        "```\nsha256sum -c SHA256SUMS\npython -m pipeline.release verify .\n```\n\n"
        "```python\nfrom pipeline.store import FeatureStore\n\n"
        'store = FeatureStore.open("store")\n'
        f'rows = store.read("{manifest.ids[0] if len(manifest) else "ID"}", "{next(iter(record["specs"]), "KEY")}")\n'
        "```\n\nPlain `zarr.open_group` and `xarray.open_zarr` read the same arrays.\n"
    )
    return "\n".join(parts)


def _counts(what: str, table: dict[str, dict[str, int]]) -> str:
    rows = [
        (name, str(entry["ok"]), str(entry["clips"]), f"{100 * entry['ok'] / entry['clips']:.1f} %")
        for name, entry in table.items()
    ]
    return _table((what, "with rows", "of", "share"), rows)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
