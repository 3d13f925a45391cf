"""Where decoding processes come from: a server that has loaded their libraries once, and forks.

The libraries take five seconds to load and fill 0.3 GB, for every core of the machine if each worker loads its own; a
forked one starts in 0.04 s and adds 4 MB.  The server runs nothing else, so a worker inherits no lock of another
thread, as it would if it were forked from the command itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

METHOD = "forkserver"
# The server listens on a socket in the temporary folder, and the system cuts the path of a socket at 107 bytes.
_LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
_PRELOADED = ["pipeline.workers", "av.logging", "cv2", "PIL.Image", "soxr"]
# Read by the numerical libraries when they are loaded: the workers themselves are the parallelism.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextlib.contextmanager
def context() -> Iterator[BaseContext]:
    """What starts a worker, and the environment to start it in."""
    made = multiprocessing.get_context(_method())
    if _method() == "forkserver":
        made.set_forkserver_preload(_PRELOADED)
    saved = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(saved, "1"))
    try:
        yield made
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def begin() -> None:
    """Have the server load its libraries while this process loads its own; returns at once."""
    with context():
        if _method() == "forkserver":
            forkserver.ensure_running()


def _method() -> str:
    """How a worker starts; anew, with libraries of its own, where the server cannot listen."""
    too_long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER
    return "spawn" if METHOD == "forkserver" and too_long else METHOD
