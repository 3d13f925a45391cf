"""Any folder of videos or sound files, without annotations: nested, of any length, with repeated file names."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline.manifest import Clip, Manifest, ManifestError, check_relative

#: Files with other endings are counted, not read.
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".flv",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wmv",
    ".3gp",
    ".ogv",
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
SUFFIXES = frozenset(VIDEO_SUFFIXES + AUDIO_SUFFIXES)
LONGEST_ID = 120


def read(folder: Path, earlier: Manifest | None = None) -> Manifest:
    """One clip per media file, sorted by relative path; behind the clips of an earlier manifest, if there is one.

    Stores are addressed by position, so what an earlier manifest lists stays as it is, also where its file is gone.
    A file that cannot be opened is a clip too, of unknown duration: it is `extract` that says what is wrong with it.
    Links that lead outside the folder are not followed, hidden files not looked at; both are counted.

    Args:
        earlier: what this function returned for the same folder before files were added.
    Raises:
        ManifestError: no such folder, nothing in it has the ending of a media file, or none of `earlier`'s files is
            there.
    """
    if not folder.is_dir():
        raise ManifestError(f"folder {folder}", [f"{folder}: no such folder"])
    paths, counted = media_files(folder)
    if not paths:
        endings = " ".join(sorted(SUFFIXES))
        raise ManifestError(f"folder {folder}", [f"no media file in it; file names must end in one of {endings}"])
    known = tuple(clip.media or "" for clip in earlier.clips) if earlier else ()
    if known and not set(known) & set(paths):
        what = f"an earlier manifest lists {len(known)} files, and none of them is in this folder"
        raise ManifestError(f"folder {folder}", [f"{what}; delete that manifest, or write to another --out"])
    new = added(paths, known)
    ids = dict(zip((*known, *new), clip_ids([*known, *new]), strict=True))
    clips = (earlier.clips if earlier else ()) + tuple(
        Clip(id=ids[path], source_id=ids[path], start_s=0.0, duration_s=probe_duration(folder / path), media=path)
        for path in new
    )
    facts = {
        "title": "a folder of media files",
        "task": "none: no annotations",
        "without_duration": sum(clip.duration_s is None for clip in clips),
    }
    changes = {"added_files": len(new), "gone_files": len(set(known) - set(paths))} if known else {}
    facts |= {name: count for name, count in changes.items() if count}
    return Manifest("folder", clips, (), facts | counted)


def added(paths: Iterable[str], known: Iterable[str]) -> list[str]:
    """Files that a manifest does not list yet, in the order in which they are put behind the others."""
    return sorted(set(paths) - set(known))


def clip_ids(paths: list[str]) -> list[str]:
    """Ids for relative paths: the path as a file name, and a short hash only where that alone would be ambiguous.

    `a/x.mp4` becomes `a-x`.  Depends on the set of paths, not on their order.  Two ids never differ in letter case
    only, since some file systems would confuse them.
    """
    slugs = [_slug(path) for path in paths]
    taken = Counter(slug.lower() for slug in slugs)
    return [
        slug
        if taken[slug.lower()] == 1 and slug and len(slug) <= LONGEST_ID and not _is_lossy(path)
        else f"{slug[:LONGEST_ID] or 'clip'}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        for slug, path in zip(slugs, paths, strict=True)
    ]


def probe_duration(path: Path) -> float | None:
    """Seconds, by `pipeline.duration`; None if it cannot be opened or holds nothing."""
    import av

    from pipeline.duration import length_s

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return length_s(container, path)
    except (av.FFmpegError, OSError, ValueError):
        return None


def media_files(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Relative paths of the media files in a folder, sorted; and how much else was passed over, by kind.

    Raises:
        OSError: the folder itself is there and cannot be read; the error names it.
    """
    root = folder.resolve()
    found, unreadable = [], []
    counted = Counter(other_files=0, hidden=0, links_outside=0, unusable_names=0)
    try:
        os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # of a device it names nothing
        raise OSError(error.errno, error.strerror, str(folder)) from error
    for here, folders, names in os.walk(folder, onerror=unreadable.append):
        counted["hidden"] += sum(name.startswith(".") for name in (*folders, *names))
        links = [name for name in folders if not name.startswith(".") and (Path(here) / name).is_symlink()]
        counted["links_outside"] += sum(not (Path(here) / name).resolve().is_relative_to(root) for name in links)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(here) / name
            relative = path.relative_to(folder).as_posix()
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                counted["other_files"] += 1
            elif not path.resolve().is_relative_to(root):
                counted["links_outside"] += 1
            elif not _is_usable(relative):
                counted["unusable_names"] += 1
            else:
                found.append(relative)
    return sorted(found), dict(counted) | {"unreadable_folders": len(unreadable)}


def _is_usable(relative: str) -> bool:
    try:
        check_relative(relative).encode("utf-8")
    except ValueError:
        return False
    return True


def _slug(path: str) -> str:
    """Letters, digits, `_`, `-` and single inner dots of the path without its ending; everything else becomes `-`."""
    stem = path[: -len(Path(path).suffix)]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)
    return re.sub(r"\.{2,}", ".", slug).strip(".")


def _is_lossy(path: str) -> bool:
    """Whether characters other than separators and spaces were replaced."""
    stem = path[: -len(Path(path).suffix)]
    return re.sub(r"[ /]", "-", stem) != _slug(path)
