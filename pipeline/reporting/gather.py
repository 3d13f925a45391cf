"""What a run folder holds, as plain records.  Every part is optional; what cannot be read becomes a note.

DIR/manifest.parquet  media/  ledger.jsonl  features/  receipts/**/*.json  benchmarks/**/*.tsv
DIR/labels/  finetune/<name>/{finetune.json,curves.json}  effect.json
DIR/train/<name>/{train.json,curves.json,predictions.npz}  scores/<name>.json
"""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline.manifest import Manifest, ManifestError
from pipeline.store import FeatureStore, StoreError

Found = TypeVar("Found")

#: What goes wrong when a file of a run is missing, cut off, damaged or of another kind.
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OverflowError,
    RuntimeError,  # codecs, and JSON that is nested too deeply
    MemoryError,  # a header that promises more than there is
    csv.Error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass
class Run:
    """A run folder that was opened.  It leaves out everything that follows the number of clips times rows.

    Args:
        path: the folder.
        media: folder of clips.
        manifest: None if there is none.
        store: None if there is none.
        notes: one sentence for each thing that is there and could not be read.
    """

    path: Path
    media: Path
    manifest: Manifest | None = None
    store: FeatureStore | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Planned feature keys; none without a store."""
        return self.store.keys() if self.store is not None else []

    @property
    def random_keys(self) -> list[str]:
        """Feature keys made with random weights, by the store's specs."""
        specs = {key: self.attempt(f"features/{key}", self.store.spec, key) for key in self.keys}
        return [key for key, spec in specs.items() if spec is not None and spec.random_weights]

    def note(self, what: str, error: Exception | str) -> None:
        line = f"{what}: {error}"
        if line not in self.notes:
            self.notes.append(line)

    def attempt(self, what: str, read: Callable[..., Found], *arguments: Any) -> Found | None:
        """What `read` returns, or None with a note if the file behind it is unusable."""
        try:
            return read(*arguments)
        except UNREADABLE as error:
            self.note(what, f"{type(error).__name__}: {error}")
            return None


def open_run(path: Path, media: Path | None = None) -> Run:
    """Open a run folder.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"--run {path}: no such folder")
    run = Run(path, media if media is not None else path / "media")
    if (path / "manifest.parquet").exists():
        try:
            run.manifest = Manifest.load(path / "manifest.parquet")
        except (ManifestError, *UNREADABLE) as error:
            run.note("manifest.parquet", error)
    if (path / "features").exists():
        try:
            run.store = FeatureStore.open(path / "features")
        except (StoreError, *UNREADABLE) as error:
            run.note("features", error)
    if run.manifest is not None and run.store is not None and run.store.facts.get("manifest") != run.manifest.digest:
        run.note("features", "the store was made for another manifest; clips are matched by id")
    return run


def json_files(run: Run, folder: str, pattern: str = "**/*.json") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path relative to the run, content) of every JSON object below a folder, sorted by path."""
    for path in sorted((run.path / folder).glob(pattern)):
        name = path.relative_to(run.path).as_posix()
        content = run.attempt(name, lambda path=path: json.loads(path.read_text(encoding="utf-8")))
        if isinstance(content, dict):
            yield name, content
        elif content is not None:
            run.note(name, f"a JSON object was expected, found {type(content).__name__}")


def json_lines(run: Run, path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, one at a time; lines that are none are counted in a note."""
    name, broken = path.relative_to(run.path).as_posix(), 0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = json.loads(line) if line.strip() else None
                except ValueError:
                    broken += 1
                    continue
                if isinstance(value, dict):
                    yield value
                elif value is not None:
                    broken += 1
    except OSError as error:
        run.note(name, error)
    if broken:
        run.note(name, f"{broken} line(s) are no JSON objects and were skipped")


def table_rows(run: Run, folder: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(path relative to the folder, row) of every TSV row below a folder, sorted by path."""
    for path in sorted((run.path / folder).glob("**/*.tsv")):
        name = path.relative_to(run.path / folder).as_posix()
        try:
            with open(path, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    yield name, row
        except UNREADABLE as error:
            run.note(f"{folder}/{name}", error)
