"""What a dataset is, as data: `manifests/<name>/dataset.yaml`, `classes.tsv` and `prompts.tsv`.

The parsers of this package turn annotation files into clips; everything that is not parsing lives in those three files.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.manifest import ManifestError

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
CHECKSUM_FLAG = "--accept-checksums"


@dataclass(frozen=True)
class AnnotationFile:
    """One file that a parser reads.

    Args:
        name: path inside the annotation folder.
        sha256: of the published file; None where the content is the user's own (demo) or not published as one file.
        origin: where to get it.
        required: False for extras that only add facts.
        variants: SHA-256 -> one sentence, of other published versions that are accepted as they are.
    """

    name: str
    sha256: str | None = None
    origin: str = ""
    required: bool = True
    variants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """The sentences and thresholds with which a text-image and a text-audio model look for one class.

    Args:
        label: class name.
        visual, audio: captions, verbatim: published pseudo-labels depend on their spelling.
        visual_threshold, audio_threshold: on scaled logits, strictly greater passes; None: to be calibrated.
        source: publication, or `ours`.
        note: typing errors kept on purpose, and the like.
    """

    label: str
    visual: str
    visual_threshold: float | None
    audio: str
    audio_threshold: float | None
    source: str
    note: str = ""


@dataclass(frozen=True)
class Description:
    """A dataset without its clips.

    Args:
        name: short name, the folder under `manifests/`.
        classes: vocabulary in index order.
        files: what the parser reads.
        facts: the rest of `dataset.yaml`: title, task, licence, citation, counts.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[AnnotationFile, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def verify(self, folder: Path, accept_checksums: bool = False) -> tuple[dict[str, dict[str, str]], list[str]]:
        """Compare the annotation files with the published checksums.

        Returns:
            For each file found its `sha256` and `version` (`published`, `unknown`, or the note of a known variant); and
            the problems, one sentence each: required files that are missing, checksums that nobody published.
        """
        found: dict[str, dict[str, str]] = {}
        problems = []
        for file in self.files:
            path = folder / file.name
            if not path.is_file():
                if file.required:
                    problems.append(f"{path}: no such file; get it from {file.origin or 'the authors of the dataset'}")
                continue
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            version = "published" if digest == file.sha256 else file.variants.get(digest, "unknown")
            found[file.name] = {"sha256": digest, "version": version}
            if version == "unknown" and file.sha256 and not accept_checksums:
                problems.append(
                    f"{path}: SHA-256 is {digest}, expected {file.sha256} ({file.origin}); "
                    f"pass {CHECKSUM_FLAG} to use the file as it is"
                )
        return found, problems


def load(name: str, root: Path = MANIFESTS) -> Description:
    """Read the description of a dataset.

    Raises:
        ManifestError: no such dataset, or a class file whose indices do not count from 0.
    """
    import yaml

    folder = root / name
    if not (folder / "dataset.yaml").is_file():
        raise ManifestError(f"dataset {name!r}", [f"{folder / 'dataset.yaml'}: no such file"])
    facts = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    files = tuple(
        AnnotationFile(
            name=entry["name"],
            sha256=entry.get("sha256"),
            origin=entry.get("origin", ""),
            required=entry.get("required", True),
            variants={variant["sha256"]: variant["note"] for variant in entry.get("variants", [])},
        )
        for entry in facts.pop("files", [])
    )
    return Description(name, read_classes(folder / "classes.tsv"), files, facts)


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of a table `index`, `name`; the index must count from 0.

    Raises:
        ManifestError: the indices do not, or a name is repeated.
    """
    problems, names = [], []
    for line, row in enumerate(_rows(path, ("index", "name")), start=2):
        if row["index"] != str(len(names)):
            problems.append(f"{path}:{line}: index {row['index']!r}, expected {len(names)}")
        if row["name"] in names:
            problems.append(f"{path}:{line}: class {row['name']!r} is listed twice")
        names.append(row["name"])
    if problems:
        raise ManifestError(str(path), problems)
    return tuple(names)


def read_prompts(path: Path, classes: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Prompts of every class, in class order.

    Raises:
        ManifestError: a class without a prompt, a prompt without a class, a threshold that is no number.
    """
    columns = ("class", "visual", "visual_threshold", "audio", "audio_threshold", "source", "note")
    prompts: dict[str, Prompt] = {}
    problems = []
    for line, row in enumerate(_rows(path, columns), start=2):
        label = row["class"]
        if label not in classes:
            problems.append(f"{path}:{line}: class {label!r} is not in the vocabulary")
        if label in prompts:
            problems.append(f"{path}:{line}: class {label!r} has two prompts")
        thresholds = []
        for column in ("visual_threshold", "audio_threshold"):
            try:
                thresholds.append(float(row[column]) if row[column] else None)
            except ValueError:
                problems.append(f"{path}:{line}: {column} {row[column]!r} is no number")
                thresholds.append(None)
        prompts[label] = Prompt(
            label, row["visual"], thresholds[0], row["audio"], thresholds[1], row["source"], row["note"] or ""
        )
    problems.extend(f"{path}: class {name!r} has no prompt" for name in classes if name not in prompts)
    if problems:
        raise ManifestError(str(path), problems)
    return tuple(prompts[name] for name in classes)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise ManifestError(str(path), ["no such file"])
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = list(reader)
        if tuple(reader.fieldnames or ()) != columns:
            raise ManifestError(str(path), [f"{path}:1: columns are {reader.fieldnames}, expected {list(columns)}"])
    problems = [
        f"{path}:{line}: expected {len(columns)} fields separated by tabs"
        for line, row in enumerate(rows, start=2)
        if None in row or None in row.values()
    ]
    if problems:
        raise ManifestError(str(path), problems)
    return rows
