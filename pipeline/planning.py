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
_DECODING = ("pipeline/media.py", "pipeline/preparation.py", "pipeline/waveform.py")


def clip_count(dataset: str, settings: dict[str, Any], manifest: str | Path) -> int:
    """Number of clips of a dataset: from its manifest if it exists, else from its description or its folder.

    Raises:
        ValueError: a folder dataset without a media folder.
    """
    if Path(manifest).is_file():
        import pyarrow.parquet as pq

        return pq.read_metadata(manifest).num_rows
    if dataset == "folder":
        if "media" not in settings:
            raise ValueError("dataset folder: say which folder with media: PATH")
        from pipeline.datasets.folder import media_files

        return len(media_files(Path(settings["media"]))[0])
    from pipeline.datasets.description import load

    return int(load(dataset).facts["counts"]["clips"])


#: What of a clip decides its features; labels and splits do not.
_MEDIA_COLUMNS = ["id", "source_id", "start_s", "duration_s", "media"]


def job_digest(manifest: str | Path, job: int, job_clips: int) -> str:
    """Short hash of the clips of one extract job: it changes when its clips do, not when others are added.

    Args:
        job: number of the job, from 0.
        job_clips: clips per job.
    Returns:
        12 hex digits; empty while there is no manifest.
    """
    path = Path(manifest)
    if not path.is_file():
        return ""
    rows = _media_columns(path, path.stat().st_mtime_ns).slice(job * job_clips, job_clips)
    return hashlib.sha256(json.dumps(rows.to_pydict(), sort_keys=True).encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=4)
def _media_columns(path: Path, _mtime_ns: int) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=_MEDIA_COLUMNS)


def code_digest(names: Iterable[str]) -> str:
    """Short hash of the code that turns media into the features of these encoders.

    Docstrings and comments do not count; the files that an encoder's file imports do.

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
    files: set[str] = set(_DECODING)
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
            return ast.literal_eval(node.value)
    raise ValueError("extractors/base.py: the table ENCODERS is gone")


# The tables name every encoder; a new one must not make the features of the others look stale.
_TABLES = ("extractors.base", "extractors.recipes", "extractors.weights")


def _follow(module: str, files: set[str]) -> None:
    """Add a module of `extractors` and everything of `extractors` that it imports."""
    path = Path(*module.split("."))
    file = path.with_suffix(".py").as_posix()
    if not (ROOT / file).is_file():
        file = (path / "__init__.py").as_posix()
    if module in _TABLES or file in files or not (ROOT / file).is_file():
        return
    files.add(file)
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("extractors"):
            _follow(node.module, files)
            for name in node.names:
                _follow(f"{node.module}.{name.name}", files)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("extractors"):
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
