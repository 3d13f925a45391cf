"""How long a file is by what it says of itself: by its header where that counts, else by its packets."""

from __future__ import annotations

import math
from pathlib import Path

import av

# Files that start later than this count from zero, not from their start.
_OFFSET_S = 0.1


def promised_s(container: av.container.InputContainer, path: Path) -> float:
    """Length that the header promises; 0 where it says nothing, and FFmpeg's figure is a guess from the bit rate."""
    if _is_guess(container, path):
        return 0.0
    return (container.duration or 0) / av.time_base - _offset_s(container)


def length_s(container: av.container.InputContainer, path: Path) -> float | None:
    """Length that the header states, or its longest stream, or else what the packets say; decodes nothing.

    None if there is nothing in it.
    """
    if not _is_guess(container, path) and _offset_s(container) <= _OFFSET_S:
        if container.duration:
            return container.duration / av.time_base if container.duration > 0 else None
        lengths = [float(stream.duration * stream.time_base) for stream in container.streams if stream.duration]
        if (longest := max(lengths, default=0.0)) > 0:
            return longest
    return _to_last_packet_s(container)


def _is_guess(container: av.container.InputContainer, path: Path) -> bool:
    """Whether FFmpeg makes a duration out of the size of the file and the bit rate of its first packets."""
    name = container.format.name
    return name == "aac" or (name == "mp3" and not _counts_frames(path))


def _counts_frames(path: Path) -> bool:
    """Whether the first frame of an MP3 file tells how many there are."""
    with open(path, "rb") as file:
        tag = file.read(10)
        size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
        file.seek(10 + size if tag[:3] == b"ID3" else 0)
        head = file.read(256)
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def _offset_s(container: av.container.InputContainer) -> float:
    """What Matroska counts as length before anything is to be seen or heard."""
    return max(container.start_time or 0, 0) / av.time_base if "matroska" in container.format.name else 0.0


def _to_last_packet_s(container: av.container.InputContainer) -> float | None:
    """From the first packet to the end of the last one."""
    first_s, last_s = math.inf, 0.0
    for packet in container.demux():
        if packet.pts is not None and not packet.is_discard:
            first_s = min(first_s, float(packet.pts * packet.time_base))
            last_s = max(last_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return last_s - first_s if last_s > first_s else None
