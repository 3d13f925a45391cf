"""Checkpoints as data: where each comes from, how it is verified, and how it reaches a network.

`resolve` turns what a user typed (`pretrained`, `random:SEED`, a path) into a state dict in the *network's* key
format and an identity string that becomes part of the feature's key.  Networks never see a URL.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

CACHE_VARIABLE = "CLAVE_WEIGHTS"
_BLOCK_BYTES = 1 << 20
_RANDOM = re.compile(r"random:(\d+)")
_TIMEOUT_S = 60


class WeightsError(Exception):
    """A checkpoint cannot be had or must not be trusted; the message says which file and what to do."""


@dataclass(frozen=True)
class Weights:
    """One published checkpoint.

    It leaves out the network: `extractors.recipes` says which recipe uses which record.

    Args:
        name: key in the table.
        file: file name in the cache folder.
        url: direct download address, or None where the publisher offers only a page.
        page: where a person reads about it.
        size_bytes: of the file, None where not published.
        sha256: full digest, or the published prefix (at least 8 hex digits); None where the publisher states none.
        licence_code: SPDX id or `unknown`.
        licence_weights: SPDX id or `unknown`; almost no publisher states one.
        member: key inside the file that holds the state dict, None when the file is the state dict.
        note: one sentence on what is not established.
    """

    name: str
    file: str
    url: str | None
    page: str
    size_bytes: int | None = None
    sha256: str | None = None
    licence_code: str = "unknown"
    licence_weights: str = "unknown"
    member: str | None = None
    note: str = ""


def cache_folder() -> Path:
    """Folder of downloaded checkpoints: $CLAVE_WEIGHTS, else `clave/weights` in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clave" / "weights"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, record: Weights) -> str:
    """SHA-256 of the file, after comparing it and the size with the record.

    Raises:
        WeightsError: size or digest differs from what the publisher states.
    """
    size = path.stat().st_size
    if record.size_bytes is not None and size != record.size_bytes:
        raise WeightsError(f"{path}: {size} bytes, {record.name} has {record.size_bytes}. Delete it and fetch again.")
    digest = sha256_of(path)
    if record.sha256 is not None and not digest.startswith(record.sha256.lower()):
        raise WeightsError(
            f"{path}: SHA-256 {digest[:16]}..., {record.name} starts with {record.sha256[:16]}. "
            "The file is damaged or another one; delete it and fetch again."
        )
    return digest


def fetch(record: Weights, folder: Path | None = None) -> tuple[Path, str]:
    """Path and SHA-256 of the verified checkpoint, downloading it into the cache if it is not there.

    A partial download is resumed; a damaged file in the cache is refused and fetched once more.  Of several processes
    that want the same file one fetches it, and the others wait.

    Raises:
        WeightsError: no network, no direct address, or the publisher's file does not match the record.
    """
    folder = folder or cache_folder()
    path = folder / record.file
    if found := _kept(path, record):
        return found
    by_hand = (
        f"Place the file by hand as {path} (from {record.page}), "
        f"or pass --weights PATH, or --weights random:0 to try the pipeline without real weights."
    )
    if record.url is None:
        raise WeightsError(f"{record.name}: the publisher has no direct download address. {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (record.file + ".partial")
    with _alone(folder / (record.file + ".lock")):
        if found := _kept(path, record):  # another process has fetched it meanwhile
            return found
        try:
            _download(record.url, partial)
        except (urllib.error.URLError, OSError) as error:
            raise WeightsError(f"{record.name}: could not download {record.url} ({error}). {by_hand}") from error
        try:
            digest = verify(partial, record)
        except WeightsError:
            partial.unlink()
            raise
        os.replace(partial, path)
    return path, digest


def _kept(path: Path, record: Weights) -> tuple[Path, str] | None:
    """The file in the cache; None if it has to be fetched, a damaged one that can be fetched again included."""
    if not path.exists():
        return None
    try:
        return path, verify(path, record)
    except WeightsError:
        if record.url is None:
            raise
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds the file, and hold it; not where the file system has no locks."""
    with open(path, "ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, partial: Path) -> None:
    """Download to `partial`, continuing where an earlier attempt stopped if the server allows it."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the partial file is already whole
            raise
        return
    with response:
        resumed = have and response.status == 206
        expected = response.headers.get("Content-Length")
        start = have if resumed else 0
        with open(partial, "ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
    size = partial.stat().st_size
    if expected is not None and size != start + int(expected):
        raise OSError(f"connection ended after {size} of {start + int(expected)} bytes; run again to resume")


def load_file(path: Path, member: str | None = None) -> dict[str, torch.Tensor]:
    """State dict of a checkpoint file, on the CPU; nothing in the file is executed.

    Args:
        path: `.safetensors`, `.npz`, `.h5` (Keras) or anything `torch.load(weights_only=True)` reads.
        member: key that holds the state dict.
    Raises:
        WeightsError: not readable without running code from it, or no such member.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            content = load_safetensors(path)
        elif suffix in (".h5", ".hdf5"):
            content = _load_hdf5(path)
        elif suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                content = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            content = _load_torch(path)
    except WeightsError:
        raise
    except Exception as error:  # every reader has its own exception types; the user needs one sentence
        raise WeightsError(f"{path}: not a checkpoint that can be read safely ({error})") from error
    if member is not None and isinstance(content, Mapping) and member in content:
        content = content[member]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        keys = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path}: no state dict{f' under {member!r}' if member else ''}; found {keys}")
    return dict(content)


def _load_torch(path: Path) -> object:
    """`torch.load` with `weights_only=True`; TorchScript archives (OpenAI CLIP) give their parameters."""
    import zipfile

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("constants.pkl") for name in archive.namelist())
        if scripted:
            return {**torch.jit.load(path, map_location="cpu").state_dict()}
    with torch.serialization.safe_globals(_harmless_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


class _LightningCallback:
    """Stands for a callback class that an old Lightning checkpoint names as a key; nothing of the class is used."""


def _harmless_globals() -> list:
    """What training scripts leave beside the tensors and `weights_only` refuses by itself.

    CLAP's files hold numpy scalars (the best scores), and Lightning before 1.5 keyed its callbacks by class.  Making
    a numpy scalar of a plain number type runs no code from the file; the Lightning class is replaced by an empty one.
    """
    import numpy as np

    scalar = np._core.multiarray.scalar
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
        np.dtype,
        *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
        (_LightningCallback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    ]


def _load_hdf5(path: Path) -> dict[str, torch.Tensor]:
    """Every dataset of a Keras weight file under its full path."""
    import h5py

    tensors: dict[str, torch.Tensor] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[name] = torch.from_numpy(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return tensors


def random_state_dict(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A seeded state dict of the same keys and shapes, scaled so that activations keep their size.

    Each tensor has its own generator, seeded by `seed` and its name, so the values do not depend on the order or
    number of the other tensors.  Norm statistics and biases are not trivial, so that a mapping error cannot hide.
    """
    filled = {}
    parameters = dict(network.named_parameters())
    for name, tensor in network.state_dict().items():
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if not tensor.is_floating_point() or (name not in parameters and not name.endswith(("_mean", "_var"))):
            filled[name] = tensor.clone()  # counters, index tables, fixed filters
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            value = 1.0 + 0.2 * noise.abs()
        elif tensor.ndim >= 2:
            value = noise * (2.0 / max(tensor[0].numel(), 1)) ** 0.5
        elif name.endswith(("weight", "gamma")):
            value = 1.0 + 0.05 * noise
        elif tensor.ndim == 0:
            value = tensor.float()
        else:
            value = 0.05 * noise
        filled[name] = value.to(tensor.dtype)
    return filled


def identify(choice: str, record: Weights | None) -> str:
    """What goes into the feature's key for a choice of weights: `sha256:<64 hex>` or `random:<seed>`.

    Args:
        choice: `pretrained`, `random:SEED` or the path of a checkpoint file.
        record: published checkpoint of the recipe; None when there is none.
    Raises:
        WeightsError: see `fetch`; also for a choice that is none of the three.
    """
    if match := _RANDOM.fullmatch(choice):
        return f"random:{int(match[1])}"
    return f"sha256:{_locate(choice, record)[1]}"


def resolve(
    choice: str,
    record: Weights | None,
    network: torch.nn.Module,
    convert: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """State dict for `network`.

    Args:
        choice, record: as for `identify`.
        network: supplies keys and shapes.
        convert: published key format -> the network's key format.
    Raises:
        WeightsError: see `fetch`, `load_file`; also for a choice that is none of the three.
    """
    if match := _RANDOM.fullmatch(choice):
        return random_state_dict(network, int(match[1]))
    return convert(load_file(_locate(choice, record)[0], record.member if record else None))


def _locate(choice: str, record: Weights | None) -> tuple[Path, str]:
    """The checkpoint file and its SHA-256."""
    if choice == "pretrained":
        if record is None:
            raise WeightsError("no published checkpoint is known for this recipe; pass --weights PATH")
        return fetch(record)
    path = Path(choice)
    if not path.is_file():
        raise WeightsError(f"--weights {choice!r}: neither `pretrained`, `random:SEED` nor an existing file")
    return path, sha256_of(path)


def load_strictly(network: torch.nn.Module, state: dict[str, torch.Tensor], what: str, optional: str = r"$^") -> None:
    """`load_state_dict` that names every missing, surplus and misshapen key at once.

    Args:
        optional: regular expression of keys of the network that a published file may lack.
    Raises:
        WeightsError: keys or shapes do not fit.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not re.search(optional, key)]
    surplus = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or surplus or misshapen:
        parts = [
            f"{len(keys)} {label} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})"
            for label, keys in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
            if keys
        ]
        raise WeightsError(f"checkpoint does not fit {what}: " + "; ".join(parts))
    network.load_state_dict(state, strict=False)
