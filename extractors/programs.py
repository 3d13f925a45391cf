"""Networks that were converted for another library, kept from one run to the next.

Converting takes several times as long as reading the result, and a run that reads it needs neither the checkpoint's
weights nor the library that the network is written in.  A kept network is found again only if all that decides its
numbers is the same: the feature's spec with the identity of its weights, the shape of the input, the source of this
package, the versions of the libraries, and the processor.  It is kept after its rows were compared with PyTorch's.

Safe to delete at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extractors.spec import FeatureSpec
from extractors.weights import sha256_of

VARIABLE = "CLAVE_PROGRAMS"
_LIBRARIES = ("numpy", "openvino", "timm", "torch", "torchvision", "transformers")
_PARTIAL = ".partial-"
_UNUSED_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Program:
    """A kept network.

    Args:
        folder: of the files that were saved.
        flop: floating-point operations for one item of its input.
    """

    folder: Path
    flop: float


class Shelf:
    """The kept networks of one feature on one kind of machine.

    Args:
        processor: whatever tells processors apart that round differently.
    """

    def __init__(self, spec: FeatureSpec, processor: str) -> None:
        facts = [spec.to_dict(), processor, _source(), [_version(name) for name in _LIBRARIES]]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.folder = cache_folder() / f"{spec.name.replace(':', '.')}-{spec.precision}-{digest[:32]}"

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return any(self.folder.glob("*/record.json"))

    def find(self, shape: tuple[int, ...]) -> Program | None:
        """The network for inputs of this shape, after comparing its files with their digests."""
        folder = self._place(shape)
        if not folder.is_dir():
            return None
        try:
            record = json.loads((folder / "record.json").read_text())
            program = Program(folder, float(record["flop"]))
            for name, digest in record["files"].items():
                if sha256_of(folder / name) != digest:
                    raise ValueError(f"{name} differs from its digest")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            shutil.rmtree(folder, ignore_errors=True)  # damaged: it is made again
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / "record.json")  # `_sweep` removes what nobody asked for in a month
        return program

    def keep(self, shape: tuple[int, ...], flop: float, save: Callable[[Path], object]) -> None:
        """Keep a network; a full disk or a folder that cannot be written costs only the keeping.

        Args:
            save: writes files into the folder that it is given.
        """
        with contextlib.suppress(OSError, RuntimeError):
            _sweep()
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory("", _PARTIAL, cache_folder(), ignore_cleanup_errors=True) as temporary:
                made = Path(temporary) / "program"
                made.mkdir()
                save(made)
                files = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
                (made / "record.json").write_text(json.dumps({"files": files, "flop": flop}))
                made.rename(self._place(shape))  # refused if another process was sooner

    def _place(self, shape: tuple[int, ...]) -> Path:
        return self.folder / "x".join(map(str, shape))


def cache_folder() -> Path:
    """$CLAVE_PROGRAMS, else `clave/programs` in the user's cache folder."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clave" / "programs"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(os.devnull) / "programs"  # where nothing can be kept


def _source() -> str:
    """Digest of this package's source: whoever changes an encoder converts anew."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _sweep() -> None:
    """Remove what was not used for a month, and what a killed process left."""
    now_s = time.time()
    for path in [*cache_folder().glob("*/*/record.json"), *cache_folder().glob(f"{_PARTIAL}*")]:
        with contextlib.suppress(OSError):
            if now_s - path.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(path.parent if path.name == "record.json" else path, ignore_errors=True)
    for folder in cache_folder().glob("*"):
        with contextlib.suppress(OSError):
            folder.rmdir()  # refused unless empty
