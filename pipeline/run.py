"""What every command does alike: receipts, progress, versions and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

DONE, BROKE, USAGE, TOO_MANY_FAILED = 0, 1, 2, 3

#: Seeds that every generator takes.
SEEDS = range(2**32)
#: Packages whose version can change a number or a file; recorded in every receipt.
PACKAGES = (
    "torch", "torchvision", "openvino", "numpy", "av", "opencv-python-headless", "soxr", "resampy", "librosa", "zarr",
)  # fmt: skip


class UsageError(ValueError):
    """Flags that cannot be meant so, whatever is on the disk; the command ends as it does for unknown ones."""


def check_numbers(arguments: argparse.Namespace, **least: int) -> None:
    """That no number on the command line is too small, and that a seed is one.

    Args:
        least: the smallest value of a flag, by name; a flag that was not given, None, is not looked at.
    Raises:
        UsageError: names all that are wrong.
    """
    given = {name: value for name in least if (value := getattr(arguments, name)) is not None}
    wrong = {name: f"at least {least[name]}" for name, value in given.items() if value < least[name]}
    if (seed := getattr(arguments, "seed", None)) is not None and seed not in SEEDS:
        wrong["seed"] = f"0 to {SEEDS[-1]}"
    if wrong:
        told = (f"--{name.replace('_', '-')} {getattr(arguments, name)}: {why}" for name, why in wrong.items())
        raise UsageError("; ".join(told))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON so that the file is complete or absent, whenever the process dies."""
    with staged_json(Path(path), value):
        pass


@contextlib.contextmanager
def staged_json(path: Path, value: Any) -> Iterator[None]:
    """Write JSON beside its place; it appears there when the block ends, and not at all if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        yield
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_torch(path: str | os.PathLike[str], value: Any) -> None:
    """Write with `torch.save` so that the file is complete or absent, and the same bytes whatever the process."""
    import torch

    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:  # the name of a path would become part of the content
        torch.save(value, file)
    os.replace(partial, path)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def receipt(stage: str, arguments: dict[str, Any], **results: Any) -> dict[str, Any]:
    """The record that a stage writes last: what ran, with what, and what came out.

    It holds no time and no host name, so that the same inputs give the same receipt.
    """
    return {"stage": stage, "arguments": arguments, "versions": versions(), **results}


def log(message: str, stream: TextIO | None = None) -> None:
    """A line for people, on stderr; in a terminal it takes the place of a progress line."""
    stream = stream or sys.stderr
    print(f"\x1b[K{message}" if stream.isatty() else message, file=stream, flush=True)


class Progress:
    """Counts of work done, with rate and ETA: one redrawn line in a terminal, a line now and then in a log.

    Args:
        total: number of things to do.
        what: plural noun, `clips`.
        every_s: seconds between two lines when stderr is no terminal.
    """

    def __init__(self, total: int, what: str, every_s: float = 15.0, stream: TextIO | None = None) -> None:
        self.total, self.what, self.every_s = total, what, every_s
        self.stream = stream or sys.stderr
        self.done = 0
        self.started_s = self.last_s = time.monotonic()
        self.terminal = self.stream.isatty()
        self.note = ""

    def add(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        now_s = time.monotonic()
        if now_s - self.last_s >= (0.2 if self.terminal else self.every_s):
            self.last_s = now_s
            self._show()

    def _show(self, end: bool = False) -> None:
        elapsed_s = max(time.monotonic() - self.started_s, 1e-9)
        rate = self.done / elapsed_s
        left_s = (self.total - self.done) / rate if rate else 0.0
        line = f"{self.done}/{self.total} {self.what}, {rate:.2f}/s, " + (
            f"took {_clock(elapsed_s)}" if end else f"ETA {_clock(left_s)}"
        )
        line += f"  {self.note}" if self.note else ""
        if self.terminal:
            # A line that wraps could not be drawn again in its place.  What is printed next begins at the left.
            shown = line if end else line[: self._columns() - 1]
            print(f"\x1b[K{shown}", end="\n" if end else "\r", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)

    def _columns(self) -> int:
        """Width of the terminal; some do not tell theirs."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:
            return 80

    def close(self) -> None:
        self._show(end=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _mendable() -> tuple[type[Exception], ...]:
    """Errors whose message is enough.  Imported when one is caught: not every command needs their modules."""
    from extractors.weights import WeightsError
    from pipeline.manifest import ManifestError

    return (ManifestError, WeightsError, ValueError, FileNotFoundError, PermissionError, ImportError)


def _told(error: Exception) -> str:
    """The system's own errors without their number."""
    named = isinstance(error, OSError) and error.filename is not None and error.strerror
    return f"{error.filename}: {error.strerror}" if named else str(error)


class _Stopped(KeyboardInterrupt):
    """SIGTERM: what Slurm sends at the end of a job's time, and Snakemake to jobs that it gives up."""


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    raise _Stopped


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, so that temporary folders and other processes go with it."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def same_sums_on_any_number_of_threads() -> None:
    """Have MKL add in an order that does not depend on its threads; by default the last bits of a row do.

    It costs nothing that could be measured.  Intel promises it for its own processors only.  MKL reads the setting when
    it first computes in a process; one of the user's own stays.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


@contextlib.contextmanager
def command(name: str) -> Iterator[None]:
    """Turn the errors a user can mend into one message and exit code 1 or 2; anything else keeps its traceback."""
    same_sums_on_any_number_of_threads()
    try:
        with _stopped_in_order():
            yield
    except _mendable() as error:
        log(f"{name}: {_told(error)}")
        raise SystemExit(USAGE if isinstance(error, UsageError) else BROKE) from error
    except OSError as error:
        log(f"{name}: {error.strerror or error} ({error.filename or 'no file named'}). What was committed is intact.")
        raise SystemExit(BROKE) from error
    except KeyboardInterrupt as error:
        how, code = ("stopped from outside", 143) if isinstance(error, _Stopped) else ("interrupted", 130)
        log(f"{name}: {how}. What was committed is intact; the same command continues.")
        raise SystemExit(code) from None
