"""Cut a clip out of a video, exact to one frame, by decoding and encoding again.

A stream copy would start at the key frame before the cut and shift the clip by seconds.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

from pipeline.acquisition import disk
from pipeline.acquisition.facts import CONTAINERS, BadMedia

#: Recorded with every clip.  One encoder thread: the same file gives the same bytes on every machine.
VIDEO = {"vcodec": "libx264", "crf": 18, "preset": "veryfast", "threads": 1}
AUDIO = {"acodec": "aac", "audio_bitrate": "192k"}
_TIMES_PER_S = 90_000


def cut(
    path: Path, made: Path, start_s: float, duration_s: float | None, timeout_s: float = 1800.0, odd_size: bool = False
) -> dict[str, Any]:
    """Encode the frames with start_s <= time < start_s + duration_s, and the sound between, into an mp4 file.

    Times keep their distance from `start_s`, so that a start between two frames shifts nothing.

    Args:
        path: of the video.
        made: mp4 to write.
        duration_s: None cuts to the end.
        odd_size: keep an odd width or height, as 4:4:4.
    Returns:
        The settings, for the record.
    Raises:
        BadMedia: `decode-error` with ffmpeg's words, or `timeout`.
        OSError: the disk is full.
    """
    import ffmpeg

    window = {"ss": start_s} | ({} if duration_s is None else {"t": duration_s})
    source = ffmpeg.input(f"file:{path}", format_whitelist=CONTAINERS, protocol_whitelist="file", threads=1, **window)
    settings = VIDEO | AUDIO | {"pix_fmt": "yuv444p" if odd_size else "yuv420p"}
    command = (
        ffmpeg.output(
            source["V:0?"],  # V: cover art is no video
            source["a:0?"],
            f"file:{made}",
            fps_mode="passthrough",
            enc_time_base=f"1:{_TIMES_PER_S}",
            video_track_timescale=_TIMES_PER_S,
            map_metadata=-1,
            map_chapters=-1,
            fflags="+bitexact",
            **{"flags:v": "+bitexact", "flags:a": "+bitexact"},
            f="mp4",
            **settings,
        )
        .global_args("-hide_banner", "-nostdin", "-loglevel", "error")
        .overwrite_output()
        .compile(cmd=ffmpeg_program())
    )
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BadMedia("timeout", f"{path.name}: cutting took longer than {timeout_s:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        if not odd_size and "not divisible by 2" in words:
            return cut(path, made, start_s, duration_s, timeout_s, odd_size=True)
        disk.check_words(words, made)
        outcome = "crashed" if done.returncode < 0 else "decode-error"
        raise BadMedia(outcome, f"{path.name}: ffmpeg stopped with {done.returncode}: {words[-500:]}")
    return settings


def ffmpeg_program() -> str:
    """Path of the ffmpeg program that comes with the `imageio-ffmpeg` package (or that its variable names)."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def ffmpeg_version() -> str:
    """Version of that program, `9.0.2-static`."""
    words = subprocess.run([ffmpeg_program(), "-version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"ffmpeg version (\S+)", words)
    return found.group(1) if found else "unknown"
