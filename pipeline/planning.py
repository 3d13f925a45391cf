"""What a run will do, known before it runs: how many clips, and which code makes the features."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What stands between a media file and an encoder, whoever the encoder is.
_DECODING = "pipeline.preparation"
_PACKAGES = ("extractors", "pipeline")


def clip_count(dataset: str, settings: dict[str, Any], manifest: str | Path, look: bool = True) -> int:
    """Number of clips of a dataset: from its manifest if it exists, else from its description or its folder.

    Args:
        look: count files that were put into a folder since its manifest was written.
    Raises:
        ValueError: a folder dataset without a media folder.
    """
    path = Path(manifest)
    if dataset == "folder" and (look or not path.is_file()):
        known, new = _files(settings, path)
        return len(known) + len(new)
    if path.is_file():
        import pyarrow.parquet as pq

        return pq.read_metadata(path).num_rows
    from pipeline.datasets.description import load

    return int(load(dataset).facts["counts"]["clips"])


def files_digest(dataset: str, settings: dict[str, Any], manifest: str | Path) -> str:
    """Short hash of what `prepare` reads: the names of a folder's files, the contents of annotation files."""
    if dataset == "folder":
        known, new = _files(settings, Path(manifest))
        return _short([*known, *new])
    if "annotations" not in settings:
        return ""
    from pipeline.datasets.description import load

    return contents_digest(Path(settings["annotations"]) / file.name for file in load(dataset).files)


def contents_digest(files: Iterable[str | Path]) -> str:
    """Short hash of the contents of files, in their order; one that is not there counts as that."""
    return _short([_sha256(path, path.stat().st_mtime_ns) if path.is_file() else None for path in map(Path, files)])


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, _mtime_ns: int) -> str:
    """A checkpoint is read once, not once per job."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


#: What of a clip decides its features; labels and splits do not.
_MEDIA_COLUMNS = ("id", "source_id", "start_s", "duration_s", "media")


def job_digest(
    dataset: str, settings: dict[str, Any], manifest: str | Path, job: int, job_clips: int, look: bool = True
) -> str:
    """Short hash of the clips of one extract job: it changes when its clips do, not when others are added.

    Args:
        job: number of the job, from 0.
        job_clips: clips per job.
        look: count files that were put into a folder since its manifest was written.
    Returns:
        12 hex digits; empty while there is no manifest.
    """
    path = Path(manifest)
    if not path.is_file():
        return ""
    # The rest of a folder's clip follows from its file, and is not known before the file is opened.
    columns = ("media",) if dataset == "folder" else _MEDIA_COLUMNS
    rows = range(job * job_clips, (job + 1) * job_clips)
    found = _rows(path, rows, columns)
    if dataset == "folder" and look:
        known, new = _files(settings, path)
        found["media"] += new[max(rows.start - len(known), 0) : max(rows.stop - len(known), 0)]
    return _short(found)


def _short(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _files(settings: dict[str, Any], manifest: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Media files that a folder's manifest lists, and those that the next `prepare` will put behind them."""
    if "media" not in settings:
        raise ValueError("dataset folder: say which folder with media: PATH")
    mtime_ns = manifest.stat().st_mtime_ns if manifest.is_file() else None
    return _listed(Path(settings["media"]), manifest, mtime_ns)


@functools.lru_cache(maxsize=4)
def _listed(media: Path, manifest: Path, mtime_ns: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from pipeline.datasets.folder import added, media_files

    known: tuple[str, ...] = ()
    if mtime_ns is not None:
        file = _manifest_file(manifest, mtime_ns)
        known = tuple(file.table(range(len(file)), ["media"])["media"].to_pylist())
    return known, tuple(added(media_files(media)[0], known))


def _rows(manifest: Path, rows: range, columns: tuple[str, ...]) -> dict[str, list]:
    """Some columns of some rows; jobs beside each other share what was read."""
    from pipeline.manifest_file import PART_CLIPS

    mtime_ns = manifest.stat().st_mtime_ns
    stop = min(rows.stop, len(_manifest_file(manifest, mtime_ns)))
    found: dict[str, list] = {name: [] for name in columns}
    for first in range(rows.start // PART_CLIPS * PART_CLIPS, stop, PART_CLIPS):
        part = _part(manifest, mtime_ns, first, columns)
        start = max(rows.start - first, 0)
        for name in columns:
            found[name] += part[name].slice(start, stop - first - start).to_pylist()
    return found


@functools.lru_cache(maxsize=64)
def _part(manifest: Path, mtime_ns: int, first: int, columns: tuple[str, ...]) -> Any:
    from pipeline.manifest_file import PART_CLIPS

    file = _manifest_file(manifest, mtime_ns)
    return file.table(range(first, min(first + PART_CLIPS, len(file))), list(columns))


@functools.lru_cache(maxsize=4)
def _manifest_file(path: Path, _mtime_ns: int) -> Any:
    from pipeline.manifest_file import ManifestFile

    return ManifestFile(path)


def code_digest(names: Iterable[str]) -> str:
    """Short hash of the code that turns media into the features of these encoders.

    Docstrings and comments do not count; the files that an encoder's file imports do, and so do those that decode.

    Args:
        names: `encoder` or `encoder:recipe`.
    Returns:
        12 hex digits.
    Raises:
        ValueError: unknown encoder.
    """
    return _code_digest(tuple(names))


@functools.cache
def _code_digest(names: tuple[str, ...]) -> str:
    """One syntax walk per set of encoders, not one per job."""
    encoders = encoder_table()
    files: set[str] = set()
    _follow(_DECODING, files)
    for name in names:
        encoder = name.split(":")[0]
        if encoder not in encoders:
            raise ValueError(f"unknown encoder {encoder!r}; known: {', '.join(sorted(encoders))}")
        _follow(encoders[encoder].split(":")[0], files)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\n{_meaning(file)}\n".encode())
    return digest.hexdigest()[:12]


@functools.cache
def encoder_table() -> dict[str, str]:
    """`extractors.base.ENCODERS`, read from its source: importing it takes three seconds (PyTorch), which every
    Snakemake process of every cluster job would spend.
    """
    for node in ast.parse((ROOT / "extractors" / "base.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "ENCODERS":
            return ast.literal_eval(node.value)  # constants only: it runs no code, unlike eval
    raise ValueError("extractors/base.py: the table ENCODERS is gone")


# The tables name every encoder; a new one must not make the features of the others look stale.  Which clips there are
# does not change what is in them.
_NOT_FOLLOWED = ("extractors.base", "extractors.recipes", "extractors.weights", "pipeline.manifest")


def _follow(module: str, files: set[str]) -> None:
    """Add a module of this project and everything of the project that it imports."""
    path = Path(*module.split("."))
    file = path.with_suffix(".py").as_posix()
    if not (ROOT / file).is_file():
        file = (path / "__init__.py").as_posix()
    if module in _NOT_FOLLOWED or file in files or not (ROOT / file).is_file():
        return
    files.add(file)
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_PACKAGES):
            _follow(node.module, files)
            for name in node.names:
                _follow(f"{node.module}.{name.name}", files)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith(_PACKAGES):
                    _follow(name.name, files)


@functools.cache
def _meaning(file: str) -> str:
    """Hash of the syntax tree without docstrings."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
