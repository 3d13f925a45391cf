"""A few clips to look at: pictures and sound over the same time axis as the truth and what the models say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.manifest import Clip
from pipeline.mediafile import MediaError, find
from pipeline.outcomes import CODES
from pipeline.reporting import clip_figure
from pipeline.reporting.decisions import Decisions, disagreement
from pipeline.reporting.gather import UNREADABLE, Run
from pipeline.reporting.thumbnails import COUNT, Thumbnail, pictures

#: Models drawn under one clip; one seed each.
SHOWN_MODELS = 4


@dataclass(frozen=True)
class ClipPanel:
    """One clip of the page.

    Args:
        why: how it was chosen.
        cells: places of the strip of thumbnails; a clip that ends early leaves the last ones empty.
        svg: waveform, spectrogram, timelines.
        notes: what could not be shown, and why.
    """

    clip: Clip
    why: str
    thumbnails: tuple[Thumbnail, ...]
    cells: int
    svg: str
    notes: tuple[str, ...]


def panels(run: Run, decisions: Sequence[Decisions], count: int) -> list[ClipPanel]:
    """Chosen clips, drawn; empty without a manifest."""
    if run.manifest is None or not run.manifest.clips or count < 1:
        return []
    shown = list(decisions)[:SHOWN_MODELS]
    made = []
    for number, (clip, why) in enumerate(choose(run, shown, count)):
        seen = pictures(clip, run.media)
        timelines = [clip_figure.Timeline("ground truth", clip.events)] if clip.events else []
        for decided in shown:
            row = decided.rows().get(clip.id)
            if row is not None:
                timelines.append(clip_figure.Timeline(decided.name, decided.events(row, seen.duration_s)))
        svg = clip_figure.draw(
            seen.duration_s, seen.sound, timelines, f"clip{number}", f"Sound and events of clip {clip.id} over time"
        )
        made.append(ClipPanel(clip, why, seen.thumbnails, COUNT, svg, seen.notes))
    return made


def choose(run: Run, decisions: Sequence[Decisions], count: int) -> list[tuple[Clip, str]]:
    """Clips and the reason for each; the same for the same run.

    With decisions: some where the models are most wrong, some where they disagree, some where they are best.
    Without: evenly over the clips that have rows, the labels as different as possible.
    """
    if decisions:
        return _by_error(run, decisions, count)
    if clips := _with_rows(run):
        return [(clip, "spread over the clips that have rows") for clip in _varied(clips, count)]
    clips = [clip for clip in _spread(run.manifest.clips, 8 * count) if _has_media(run, clip)]
    return [(clip, "spread over the clips that have media") for clip in _varied(clips, count)]


def _by_error(run: Run, decisions: Sequence[Decisions], count: int) -> list[tuple[Clip, str]]:
    listed = set().union(*(decided.ids for decided in decisions))
    clips = [clip for clip in run.manifest.clips if clip.id in listed]
    errors = [decided.wrong(clips) for decided in decisions]
    mean = {
        clip.id: float(np.mean([error[clip.id] for error in errors if clip.id in error]))
        for clip in clips
        if any(clip.id in error for error in errors)
    }
    apart: dict[str, list[float]] = {}
    for first, second in itertools.combinations(decisions, 2):
        for clip_id, share in disagreement(first, second).items():
            apart.setdefault(clip_id, []).append(share)
    clips = [clip for clip in clips if clip.id in mean]
    chosen: list[tuple[Clip, str]] = []

    def take(order: list[Clip], number: int, what: str) -> None:
        taken = {clip.id for clip, _ in chosen}
        for clip in _distinct([clip for clip in order if clip.id not in taken], number):
            chosen.append((clip, f"{what}: on average {100 * mean[clip.id]:.0f} % of the segments are wrong"))

    # `sorted` is stable, so clips with equal numbers stay in manifest order.
    differing = sorted((c for c in clips if c.id in apart), key=lambda c: -float(np.mean(apart[c.id])))
    take(sorted(clips, key=lambda clip: -mean[clip.id]), -(-count // 3), "among the most wrong")
    take(differing, (count + 1) // 3, "the models disagree")
    take(sorted(clips, key=lambda clip: mean[clip.id]), count - len(chosen), "among the best")
    return chosen


def _with_rows(run: Run) -> list[Clip]:
    """Clips with rows under every key, test split first."""
    if run.store is None:
        return []
    ok: np.ndarray | None = None
    ids: list[str] = []
    for key in run.keys:
        codes = run.attempt(f"features/{key}", lambda key=key: np.asarray(run.store.array(key, "outcome")[:]))
        if codes is None:
            continue
        ids = ids or [str(clip_id) for clip_id in run.store.array(key, "clip")[:]]
        ok = codes == CODES["ok"] if ok is None else ok & (codes == CODES["ok"])
    if ok is None or not ok.any():
        return []
    good = {ids[row] for row in np.flatnonzero(ok)}
    clips = [clip for clip in run.manifest.clips if clip.id in good]
    return [clip for clip in clips if clip.split == "test"] or clips


def _spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    places = np.unique(np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(np.int64))
    return [clips[place] for place in places]


def _varied(clips: Sequence[Clip], count: int) -> list[Clip]:
    return _distinct(_spread(clips, 8 * count), count)


def _distinct(clips: Sequence[Clip], count: int) -> list[Clip]:
    """The first clips whose labels were not seen yet, filled up with the first of the others; in the given order."""
    chosen, seen = [], set()
    for clip in clips:
        if len(chosen) < count and clip.labels not in seen:
            seen.add(clip.labels)
            chosen.append(clip)
    for clip in clips:
        if len(chosen) < count and clip not in chosen:
            chosen.append(clip)
    return sorted(chosen, key=clips.index)


def _has_media(run: Run, clip: Clip) -> bool:
    try:
        return find(clip, run.media)[0].is_file()
    except (MediaError, *UNREADABLE):
        return False
