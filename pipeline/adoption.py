"""Published feature files as what they are: a spec that names their origin, and a reader by clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from extractors.spec import FeatureSpec, Grid
from pipeline.blocks import StoreError
from pipeline.manifest import Clip, Manifest
from pipeline.run import sha256_of

RECIPE = "published"
FORMATS = ("ave-h5", "llp-npy", "unav-npy")

# file or folder -> (encoder, modality, row shape, rows a clip)
_AVE = {"visual": ("vgg19", "visual_feature.h5"), "audio": ("vggish", "audio_feature.h5")}
_LLP = {
    "data/feats/vggish": ("vggish", "audio", (128,), 10),
    "data/feats/res152": ("resnet152", "visual", (2048,), 80),
    "data/feats/r2plus1d_18": ("r2plus1d", "visual", (512,), 10),
    "data/CLIP/features": ("clip-l14", "visual", (768,), 10),
    "data/CLAP/features": ("clap-map", "audio", (64, 768), 1),
    "data/feats/clip_16": ("clip-b16", "visual", (512,), 80),
    "data/feats/clap_audioset": ("clap", "audio", (512,), 10),
}
_UNAV = {
    "rgb": ("i3d-rgb", "visual"),
    "flow": ("i3d-flow", "visual"),
    "vggish": ("vggish", "audio"),
    "one_peace_video_finetune": ("one-peace-video", "visual"),
    "one_peace_audio": ("one-peace-audio", "audio"),
}
#: Seconds between rows and length of a row, as UnAV's and CCNet's loaders place them (spec: fps, stride, frames).
_UNAV_GRID = {"one_peace_video_finetune": (0.25, 1.0), "one_peace_audio": (0.25, 1.0)}
_UNAV_DEFAULT = (0.32, 0.96)


class Unusable(Exception):
    """A clip has no published rows; `outcome` is of `pipeline.outcomes`."""

    def __init__(self, outcome: str, reason: str) -> None:
        self.outcome = outcome
        super().__init__(outcome, reason)

    def __str__(self) -> str:
        return self.args[1]


class Reader(Protocol):
    """Reads published rows; it travels to Dask workers, so it holds names and no open file."""

    def read(self, clips: list[tuple[int, Clip]]) -> Iterator[np.ndarray | Unusable]:
        """Rows (T, ...) of each (manifest row, clip), or why there are none.

        Raises:
            StoreError: values that the store's dtype cannot hold exactly.
        """
        ...


@dataclass(frozen=True)
class OneFile:
    """An HDF5 array whose row i is clip i.

    Args:
        path, array: file and name of the array in it.
        dtype: of the store.
        absent: clip id -> reason, for rows of zeros that stand for missing features.
    """

    path: Path
    array: str
    dtype: str
    absent: dict[str, str]

    def read(self, clips: list[tuple[int, Clip]]) -> Iterator[np.ndarray | Unusable]:
        import h5py

        with h5py.File(self.path, "r") as file:
            for row, clip in clips:
                if reason := self.absent.get(clip.id):
                    yield Unusable("absent", reason)
                else:
                    yield exact(file[self.array][row], self.dtype, f"{self.path}, row {row}")


@dataclass(frozen=True)
class FilePerClip:
    """A folder with one `.npy` file per clip.

    Args:
        folder: of the files, named by the first `id_length` characters of the clip id and `suffix`.
        shape: of a file, -1 for any number of rows.
        dtype: of the store.
        absent: clip id -> reason, for files of zeros that stand for missing features.
    """

    folder: Path
    suffix: str
    shape: tuple[int, ...]
    dtype: str
    id_length: int | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def read(self, clips: list[tuple[int, Clip]]) -> Iterator[np.ndarray | Unusable]:
        for _, clip in clips:
            if reason := self.absent.get(clip.id):
                yield Unusable("absent", reason)
                continue
            try:
                yield _npy(self.folder / f"{clip.id[: self.id_length]}{self.suffix}", self.shape, self.dtype)
            except Unusable as error:
                yield error


@dataclass(frozen=True)
class Published:
    """One published feature.

    Args:
        spec: with recipe `published`; its `preprocess` says layout, file digest and origin.
        reader: of its rows.
    """

    spec: FeatureSpec
    reader: Reader

    def segments(self, values: np.ndarray) -> np.ndarray:
        """(T, 2) seconds of rows that came without times."""
        start_s = np.arange(len(values)) * self.spec.grid.hop_s
        return np.stack([start_s, start_s + self.spec.grid.window_s], axis=1)


def find(layout: str, folder: Path, manifest: Manifest, origin: str, dtype: str) -> list[Published]:
    """Every feature of a layout that lies in the folder.

    Raises:
        StoreError: nothing of the layout there, or files that do not fit the manifest.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--from {folder}: no such folder")
    found = {"ave-h5": _ave, "llp-npy": _llp, "unav-npy": _unav}[layout](folder, manifest, origin, dtype)
    if not found:
        raise StoreError(f"{folder}: holds no feature file of the layout {layout}")
    return found


def _spec(
    encoder: str, modality: str, shape: tuple[int, ...], grid: Grid, steps: tuple[str, ...], digest: str, dtype: str
) -> FeatureSpec:
    return FeatureSpec(
        encoder, RECIPE, modality, "as published", steps, (), grid, None, shape, dtype, weights=f"published:{digest}"
    )


def exact(values: np.ndarray, dtype: str, what: str) -> np.ndarray:
    """The values in another type, if that loses nothing.

    Raises:
        StoreError: it would; says which type to ask for.
    """
    cast = values.astype(dtype)
    if not np.array_equal(cast.astype(values.dtype), values, equal_nan=True):
        raise StoreError(f"{what}: {values.dtype} values do not fit {dtype} exactly; pass --dtype {values.dtype}")
    return cast


def _known_missing(folder: Path, role_of: dict[str, str]) -> dict[tuple[str, str], str]:
    """(clip id, role) -> reason, where the folder is an export of ours with empty rows."""
    path = folder / "missing.json"
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text())["rows"]
    return {(row["id"], role_of.get(row["feature"], row["feature"])): row["reason"] for row in rows}


def _of_role(absent: dict[tuple[str, str], str], role: str) -> dict[str, str]:
    return {clip_id: reason for (clip_id, its_role), reason in absent.items() if its_role == role}


def _ave(folder: Path, manifest: Manifest, origin: str, dtype: str) -> list[Published]:
    import h5py

    absent = _known_missing(folder, {})
    found = []
    for modality, (encoder, name) in _AVE.items():
        path = folder / name
        if not path.is_file():
            continue
        with h5py.File(path, "r") as file:
            keys = [key for key in ("avadataset", "dataset") if key in file]
            if not keys or file[keys[0]].ndim < 3:
                raise StoreError(f"{path}: expected an array `avadataset` (clip, second, ...), found {list(file)}")
            shape = file[keys[0]].shape
        if shape[0] != len(manifest):
            raise StoreError(
                f"{path}: {shape[0]} rows, the manifest has {len(manifest)} clips. Row i must be clip i; "
                "a folder written with --missing renumber needs the manifest of the clips it kept"
            )
        digest = sha256_of(path)
        steps = (f"ave-h5 {name}", f"sha256 {digest}", *((f"from {origin}",) if origin else ()))
        spec = _spec(encoder, modality, shape[2:], Grid(1.0, 1.0, shape[1]), steps, digest[:16], dtype)
        found.append(Published(spec, OneFile(path, keys[0], dtype, _of_role(absent, modality))))
    return found


def _llp(folder: Path, manifest: Manifest, origin: str, dtype: str) -> list[Published]:
    roles = {"clip": "CLIP", "clap": "CLAP"}
    absent = _known_missing(folder, roles)
    found = []
    for name, (encoder, modality, shape, rows) in _LLP.items():
        files = folder / name
        if not files.is_dir():
            continue
        digest = _folder_digest(files, "*.npy")
        steps = (f"llp-npy {name}", f"sha256 of the folder {digest}", *((f"from {origin}",) if origin else ()))
        step_s = 10.0 / rows
        spec = _spec(encoder, modality, shape, Grid(step_s, step_s, rows), steps, digest[:16], dtype)
        role = Path(name).parts[1] if "features" in name else Path(name).name
        gaps = _of_role(absent, role)
        found.append(Published(spec, FilePerClip(files, ".npy", (rows, *shape), dtype, 11, gaps)))
    return found


def _unav(folder: Path, manifest: Manifest, origin: str, dtype: str) -> list[Published]:
    inner = folder / "data" / "unav_100" / "av_features"
    files = inner if inner.is_dir() else folder
    found = []
    for kind, (encoder, modality) in _UNAV.items():
        first = next((path for clip in manifest.clips if (path := files / f"{clip.id}_{kind}.npy").is_file()), None)
        if first is None:
            continue
        width = np.load(first, mmap_mode="r", allow_pickle=False).shape[1:]
        digest = _folder_digest(files, f"*_{kind}.npy")
        hop_s, window_s = _UNAV_GRID.get(kind, _UNAV_DEFAULT)
        steps = (f"unav-npy {kind}", f"sha256 of the files {digest}", *((f"from {origin}",) if origin else ()))
        spec = _spec(encoder, modality, tuple(width), Grid(window_s, hop_s), steps, digest[:16], dtype)
        found.append(Published(spec, FilePerClip(files, f"_{kind}.npy", (-1, *width), dtype)))
    return found


def _npy(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise Unusable("absent", f"{path.name}: no such file") from error
    except (ValueError, EOFError, OSError) as error:
        raise Unusable("decode-error", f"{path.name}: unreadable ({error})") from error
    if shape[0] == 1 and values.shape == shape[1:]:
        values = values[None]
    if values.shape[1:] != shape[1:] or (shape[0] >= 0 and len(values) != shape[0]) or not len(values):
        raise Unusable("decode-error", f"{path.name}: shape {values.shape}, expected {shape}")
    return exact(values, dtype, str(path))


def _folder_digest(folder: Path, pattern: str) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        digest.update(f"{sha256_of(path)}  {path.name}\n".encode())
    return digest.hexdigest()
