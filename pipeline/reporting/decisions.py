"""What a trained model decided about each clip, as grids over segments, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.manifest import Clip, Event
from pipeline.predictions import Predictions, decide
from pipeline.reporting.gather import Run


@dataclass(frozen=True)
class Decisions:
    """Decided events of one training on its evaluation clips.  It leaves out probabilities.

    Args:
        name: of the training, `avel-supervised-0`.
        ids: clip of each row of the grids.
        classes: names of the columns.
        grids: modality (`audio`, `visual` or `both`) -> (N, T, C) bool.
    """

    name: str
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


def disagreement(first: Decisions, second: Decisions) -> dict[str, float]:
    """Share of segments, 0..1, where two trainings differ, for the clips that both decide in the same modalities."""
    rows = second.rows()
    common = [(row, rows[clip_id]) for row, clip_id in enumerate(first.ids) if clip_id in rows]
    one, other = first.grids, second.grids
    shared = [name for name in one if name in other and one[name].shape[1:] == other[name].shape[1:]]
    if not common or not shared:
        return {}
    left, right = np.array(common).T
    differ = [(one[name][left] != other[name][right]).any(axis=2).mean(axis=1) for name in shared]
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


def read_decisions(path: Path, name: str, classes: tuple[str, ...]) -> Decisions:
    """Decide from a `predictions.npz` as `pipeline.score` does: epoch chosen on validation, test clips if there are.

    Raises:
        ValueError: no such file, or shapes that do not fit the manifest.
    """
    stored = Predictions.load(path)
    selection = "best-validation" if "best-validation" in stored.arrays else next(iter(stored.arrays), None)
    if selection is None:
        raise ValueError(f"{path.name}: holds no predictions")
    split = "test" if (stored.splits == "test").any() else str(stored.splits[0])
    decided = decide(
        stored.facts["task"], stored.of(selection, split), len(classes), stored.facts.get("gate_is", "logits")
    )
    if "classes" in decided:
        decided = {"both": decided["classes"][:, :, None] == np.arange(len(classes))}
    ids = stored.clips[stored.splits == split]
    for modality, grid in decided.items():
        if grid.ndim != 3 or len(grid) != len(ids) or grid.shape[2] != len(classes):
            raise ValueError(
                f"{path.name}: {modality} has shape {grid.shape}, expected ({len(ids)}, segments, {len(classes)})"
            )
    return Decisions(name, tuple(str(clip_id) for clip_id in ids), classes, decided)


def all_decisions(run: Run) -> Iterator[Decisions]:
    """Those of the first seed of each model, by name."""
    if run.manifest is None:
        return
    seen = set()
    for path in sorted((run.path / "train").glob("*/predictions*.npz")):
        name = path.parent.name
        stem, _, seed = name.rpartition("-")
        model = stem if stem and seed.isdigit() else name
        if model in seen:
            continue
        found = run.attempt(f"train/{name}/{path.name}", read_decisions, path, name, tuple(run.manifest.classes))
        if found is not None:
            seen.add(model)
            yield found
