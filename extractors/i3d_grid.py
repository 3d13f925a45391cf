"""When the rows of UnAV-100's published I3D features are: windows over a 25 fps stream, and their seconds.

The network itself is not part of this; the arithmetic lets published features be read, timed and checked.

Source: v-iashin/video_features with `stack_size=24 step_size=8 extraction_fps=25`, ttgeng233/UnAV issue 7.
"""

from __future__ import annotations

import numpy as np

FPS = 25.0
STACK_FRAMES = 24
STEP_FRAMES = 8
#: A window of 24 flow fields takes 25 frames; the RGB stream uses the first 24 of them.
WINDOW_FRAMES = STACK_FRAMES + 1


def rows(frames: int) -> int:
    """Windows in `frames` frames at 25 fps; an incomplete last one is dropped, so short clips have none.

    >>> rows(250)
    29
    """
    return max((frames - WINDOW_FRAMES) // STEP_FRAMES + 1, 0)


def windows(frames: int) -> np.ndarray:
    """(T, 2) int64: first frame and end (exclusive) of each row's 24 RGB frames."""
    first = np.arange(rows(frames), dtype=np.int64) * STEP_FRAMES
    return np.stack([first, first + STACK_FRAMES], axis=1)


def segments(frames: int) -> np.ndarray:
    """(T, 2) float64 seconds of `windows`: 0.96 s long, 0.32 s apart."""
    return windows(frames) / FPS


def to_grid(seconds: np.ndarray | float) -> np.ndarray:
    """Row coordinate of a time, 0 at the middle of the first window: `(t * 25 - 12) / 8`, as UnAV's loader has it."""
    return (np.asarray(seconds, dtype=np.float64) * FPS - STACK_FRAMES / 2) / STEP_FRAMES


def to_seconds(coordinate: np.ndarray | float) -> np.ndarray:
    """Inverse of `to_grid`."""
    return (np.asarray(coordinate, dtype=np.float64) * STEP_FRAMES + STACK_FRAMES / 2) / FPS
