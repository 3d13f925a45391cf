"""What is true in the rows of a clip, whatever their length: events of any times on the grid that a key has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.manifest import Clip

_TOLERANCE = 1e-6


def true_rows(clip: Clip, classes: Sequence[str], modality: str, segments: np.ndarray) -> np.ndarray:
    """Which classes are heard or seen in each row of a clip.

    A class is true in a row if one of its events covers half of the row, or half of the event lies in the row (an
    event may be shorter than a row).  Events on whole seconds and rows of a second give the published grids, and events
    without length, of which LLP and AVE have some, mark nothing there either.

    Args:
        classes: vocabulary.
        modality: `audio` or `visual`; events of modality `both` count in either.
        segments: (T, 2) start and end of the rows in seconds from the start of the clip.
    Returns:
        (T, C) bool.
    """
    segments = np.asarray(segments, dtype=np.float64)
    index = {name: place for place, name in enumerate(classes)}
    true = np.zeros((len(segments), len(index)), dtype=bool)
    for event in clip.events:
        if event.modality not in (modality, "both") or event.end_s <= event.start_s:
            continue
        shared_s = np.minimum(segments[:, 1], event.end_s) - np.maximum(segments[:, 0], event.start_s)
        needed_s = 0.5 * np.minimum(segments[:, 1] - segments[:, 0], event.end_s - event.start_s)
        true[:, index[event.label]] |= shared_s >= needed_s - _TOLERANCE
    return true
