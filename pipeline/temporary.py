"""The temporary folder of a process that may be killed at any moment; whoever outlives the process removes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def make() -> Path:
    """A new folder in the temporary folder of this process."""
    return Path(tempfile.mkdtemp(prefix="clave-decoder-"))


def use(folder: Path) -> None:
    """Have `tempfile` put everything there from now on."""
    tempfile.tempdir = str(folder)


def remove(folder: Path) -> None:
    """Remove the folder, also while a program that the process began still writes there: its next file fails, and it
    ends.  May be called twice, and after somebody who was killed while removing it.
    """
    gone = folder.with_name(f"{folder.name}.gone")
    with contextlib.suppress(OSError):
        os.rename(folder, gone)  # so that no file comes in between looking and removing
    shutil.rmtree(gone, ignore_errors=True)
