"""Decode in a process of its own, so that a file that crashes or hangs a decoder costs one clip, not the run.

The child reads one JSON request per line and answers with one JSON line; it ends when its parent does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.access import AccessError, is_access_error
from pipeline.acquisition.facts import BadMedia, Facts, inspect, probe

ROOT = Path(__file__).resolve().parents[2]


class Checker:
    """One decoding process, started when it is first needed and again after it died.

    Args:
        timeout_s: longest time for one file.
    """

    def __init__(self, timeout_s: float = 600.0) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inspect(self, path: Path, start_s: float = 0.0, duration_s: float | None = None) -> Facts:
        """See `pipeline.acquisition.facts.inspect`.

        Raises:
            BadMedia: also `crashed` and `timeout`.
            AccessError: this machine, and not the file, is at fault.
        """
        return Facts(
            **self._ask({"do": "inspect", "path": str(path), "start_s": start_s, "duration_s": duration_s}, path)
        )

    def probe(self, path: Path) -> tuple[float, str]:
        """See `pipeline.acquisition.facts.probe`."""
        answer = self._ask({"do": "probe", "path": str(path)}, path)
        return answer["length_s"], answer["ending"]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):  # a request that it did not live to read
                self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _ask(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        process = self._process = self._process or _start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], self.timeout_s)
            line = process.stdout.readline() if readable else None
        except BrokenPipeError:
            line = b""
        if not line:
            self.close()
            if line is None:
                raise BadMedia("timeout", f"{path.name}: decoding took longer than {self.timeout_s:g} s")
            raise BadMedia("crashed", f"{path.name}: the decoding process died")
        answer = json.loads(line)
        if "errno" in answer:
            raise AccessError(answer["errno"], os.strerror(answer["errno"]), str(path))
        if "outcome" in answer:
            raise BadMedia(answer["outcome"], answer["message"])
        return answer


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.acquisition.checker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's business
    )


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    try:
        if request["do"] == "probe":
            length_s, ending = probe(path)
            return {"length_s": length_s, "ending": ending}
        return inspect(path, request["start_s"], request["duration_s"]).to_dict()
    except BadMedia as error:
        return {"outcome": error.outcome, "message": error.message}
    except MemoryError:
        return {"outcome": "crashed", "message": f"{path.name}: out of memory while decoding"}
    except Exception as error:
        if is_access_error(error):
            return {"errno": error.errno}
        # Whatever else a decoder raises on this file is this file's reason.
        return {"outcome": "decode-error", "message": f"{path.name}: {type(error).__name__}: {error}"}


def _serve() -> None:
    import av.logging

    av.logging.set_level(av.logging.PANIC)
    for line in sys.stdin.buffer:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
