"""Checkpoint files read without running anything in them, and loaded without a key left over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from extractors.weights import WeightsError


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
