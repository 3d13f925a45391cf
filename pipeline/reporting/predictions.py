"""What a trained model said about each clip, as grids over segments, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.manifest import Clip, Event
from pipeline.metrics import ave, avvp


@dataclass(frozen=True)
class Predictions:
    """Decided events of one run on one split.  It leaves out probabilities.

    Args:
        run: name of the training run.
        ids: clip of each row of the grids.
        classes: names of the columns.
        grids: modality (`audio`, `visual` or `both`) -> (N, T, C) bool.
    """

    run: str
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    grids: dict[str, np.ndarray]

    def rows(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.ids)}

    def events(self, row: int, duration_s: float) -> tuple[Event, ...]:
        """Runs of segments of one clip as events in seconds."""
        found = []
        for modality, grid in self.grids.items():
            hop_s = duration_s / grid.shape[1]
            for index in np.flatnonzero(grid[row].any(axis=0)):
                edges = np.flatnonzero(np.diff(np.concatenate([[0], grid[row, :, index].astype(np.int8), [0]])))
                for start, stop in edges.reshape(-1, 2):
                    found.append(Event(self.classes[index], modality, float(start * hop_s), float(stop * hop_s)))
        return tuple(found)

    def wrong(self, clips: Iterable[Clip]) -> dict[str, float]:
        """Share of segments, 0..1, where some class of some modality differs from the manifest's events."""
        rows = self.rows()
        found = {}
        for clip in clips:
            if clip.id in rows:
                differ = [
                    (grid[rows[clip.id]] != truth(clip, modality, grid.shape[1], self.classes)).any(axis=1).mean()
                    for modality, grid in self.grids.items()
                ]
                found[clip.id] = float(np.mean(differ))
        return found


def disagreement(first: Predictions, second: Predictions) -> dict[str, float]:
    """Share of segments, 0..1, where two runs differ, for the clips that both predict in the same modalities."""
    rows = second.rows()
    common = [(row, rows[clip_id]) for row, clip_id in enumerate(first.ids) if clip_id in rows]
    shared = [
        name
        for name in first.grids
        if name in second.grids and first.grids[name].shape[1:] == second.grids[name].shape[1:]
    ]
    if not common or not shared:
        return {}
    left, right = np.array(common).T
    differ = [(first.grids[name][left] != second.grids[name][right]).any(axis=2).mean(axis=1) for name in shared]
    return {first.ids[row]: float(share) for row, share in zip(left, np.mean(differ, axis=0), strict=True)}


def truth(clip: Clip, modality: str, segments: int, classes: tuple[str, ...]) -> np.ndarray:
    """(segments, C) bool: the clip's events that a modality perceives, by the middle of each segment."""
    grid = np.zeros((segments, len(classes)), dtype=bool)
    columns = {name: index for index, name in enumerate(classes)}
    duration_s = clip.duration_s or 10.0
    middles_s = (np.arange(segments) + 0.5) * duration_s / segments
    for event in clip.events:
        if event.modality in (modality, "both") and event.label in columns:
            grid[(middles_s >= event.start_s) & (middles_s < event.end_s), columns[event.label]] = True
    return grid


def read_predictions(path: Path, run: str, classes: tuple[str, ...]) -> Predictions:
    """Read a `predictions.npz` of `pipeline.train` and decide as `pipeline.score` does.

    AVE files hold `scores` (N, T, C + 1), or `gate` (N, T) with `category` (N, C [+ 1]); AVVP files hold the
    probabilities `video` (N, C), `audio` and `visual` (N, T, C).

    Raises:
        ValueError: none of these, or shapes that do not fit.
    """
    with np.load(path, allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    ids = next((held[name] for name in ("ids", "clips", "clip", "id") if name in held), None)
    if ids is None:
        raise ValueError(f"{path.name}: no clip ids; it holds {', '.join(sorted(held))}")
    grids = _decide(held, len(classes), path.name)
    for modality, grid in grids.items():
        if grid.ndim != 3 or len(grid) != len(ids) or grid.shape[2] != len(classes):
            raise ValueError(
                f"{path.name}: {modality} has shape {grid.shape}, expected ({len(ids)}, segments, {len(classes)})"
            )
    return Predictions(run, tuple(str(clip_id) for clip_id in ids), classes, grids)


def _decide(held: dict[str, np.ndarray], classes: int, name: str) -> dict[str, np.ndarray]:
    if {"video", "audio", "visual"} <= held.keys():
        return {modality: avvp.decide(held["video"], held[modality]) for modality in ("audio", "visual")}
    if "scores" in held:
        decided = ave.per_segment(held["scores"])
    elif {"gate", "category"} <= held.keys():
        gate_is = str(held["gate_is"]) if "gate_is" in held else "logits"
        decided = ave.gated(held["gate"], held["category"], classes, gate_is)
    else:
        raise ValueError(f"{name}: no predictions that this version knows; it holds {', '.join(sorted(held))}")
    return {"both": decided[:, :, None] == np.arange(classes)}
