"""The LLP authors' frames: `ffmpeg -i VIDEO -y -r 8 OUT/%06d.jpg`, read back as RGB.

This is not `fps=8` in memory: `-r 8` begins with an extra picture and lags by about 0.15 s, and the JPEG quantiser
climbs through the clip because no quality is given.  ffmpeg 4.3 to 5.1 give the authors' pixels; later versions pick
the same frames and code them differently (up to 24 of 255 on ffmpeg 9).
"""

from __future__ import annotations

import errno
import functools
import logging
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.access import AccessError, check_words
from pipeline.mediafile import MediaError

log = logging.getLogger(__name__)

RATE_HZ = 8
_FAITHFUL = ((4, 3), (5, 1))
_TIMEOUT_S = 900


def executable() -> str:
    """ffmpeg on the PATH, else the one that comes with the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def version(program: str) -> str:
    """Version as the program states it, such as `5.1.9-0+deb12u1`.

    Raises:
        RuntimeError: the program does not run.
    """
    try:
        answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{program} -version fails ({error}); install ffmpeg 5.1, or put it on the PATH") from error
    match = re.match(r"ffmpeg version (\S+)", answer)
    return match[1] if match else "unknown"


def is_faithful(stated: str) -> bool:
    """Whether this version writes the pixels that the LLP features were made from: 4.3 to 5.1."""
    match = re.match(r"n?(\d+)\.(\d+)", stated)
    return bool(match) and _FAITHFUL[0] <= (int(match[1]), int(match[2])) <= _FAITHFUL[1]


@functools.cache
def _announce(program: str) -> None:
    """Say once per process which ffmpeg is used."""
    stated = version(program)
    if is_faithful(stated):
        log.info("frame dump with ffmpeg %s (%s): the LLP features' pixels", stated, program)
    else:
        log.warning(
            "frame dump with ffmpeg %s (%s): not 4.3 to 5.1, so JPEGs differ from those of the LLP features "
            "(up to 24 of 255 measured); put ffmpeg 5.1 on the PATH for equal pixels",
            stated,
            program,
        )


def dump(path: Path, folder: Path, start_s: float = 0.0, duration_s: float | None = None) -> list[Path]:
    """Write the 8 Hz JPEGs of a video; a 10 s clip gives 82.

    Args:
        path: of the video.
        folder: empty and existing; `000001.jpg` and so on are written there.
        start_s: where the clip starts in the file; the published route works on clips already cut.
        duration_s: of the clip; None to the end of the file.
    Returns:
        paths in order.
    Raises:
        pipeline.mediafile.MediaError: `decode-error` if ffmpeg fails or no picture comes out, `crashed` if it dies,
            `timeout` if it hangs.
        pipeline.access.AccessError: this machine, and not the video, is at fault.
    """
    import ffmpeg

    program = executable()
    _announce(program)
    cut = {"ss": start_s} if start_s else {}
    if duration_s is not None:
        cut["t"] = duration_s
    # `file:` keeps names with a colon or a leading dash from being read as anything else.
    pattern = "file:" + str(folder.resolve()).replace("%", "%%") + "/%06d.jpg"
    command = (
        ffmpeg.input(f"file:{path.resolve()}", **cut)
        .output(pattern, r=RATE_HZ)
        .global_args("-nostdin", "-loglevel", "error")
        .overwrite_output()
        .compile(cmd=program)
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise MediaError("timeout", f"{path.name}: ffmpeg wrote no full frame dump in {_TIMEOUT_S} s") from error
    paths = sorted(folder.glob("*.jpg"))
    if done.returncode or not paths:
        try:
            check_words(done.stderr, path)
        except AccessError as error:
            if error.errno == errno.ENOSPC:  # that is where it writes
                error.filename = str(folder)
            raise
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        ended = f"ends with {done.returncode} after {len(paths)} pictures" if done.returncode else "dumps no frame"
        outcome = "crashed" if done.returncode < 0 else "decode-error"
        raise MediaError(outcome, f"{path.name}: ffmpeg {version(program)} {ended} ({reason})")
    return paths


def read_jpegs(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB of each file, decoded by Pillow as the LLP extractors do."""
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))
