"""The figure of a clip: sound above, who says what happens when below, one time axis in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.manifest import Event
from pipeline.reporting.drawing import colour, new_figure, plain, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.reporting.sound import Sound

WIDTH_IN = 10.0
LEFT, RIGHT = 0.17, 0.985  # of the width; the page lays the thumbnails over the same stretch
_BAND_IN = {"wave": 0.75, "spectrogram": 1.15, "lane": 0.235, "title": 0.235}


@dataclass(frozen=True)
class Timeline:
    """Events of one clip by one source, ground truth or a model."""

    title: str
    events: tuple[Event, ...]


def draw(duration_s: float, sound: Sound | None, timelines: Sequence[Timeline], prefix: str, label: str) -> str:
    """Waveform, spectrogram and timelines of a clip above one time axis in seconds."""
    lanes = _lanes(timelines)
    bands = [] if sound is None else ["wave", "spectrogram"]
    heights = [_BAND_IN[band] for band in bands]
    if lanes or sound is None:
        heights.append(max(sum(_BAND_IN["title" if lane.label is None else "lane"] for lane in lanes) + 0.08, 0.3))
    gap_in, top_in, bottom_in = 0.1, 0.06, 0.5
    height_in = sum(heights) + gap_in * (len(heights) - 1) + top_in + bottom_in
    with style():
        figure = new_figure(WIDTH_IN, height_in)
        below = height_in - top_in
        made = []
        for band_in in heights:
            below -= band_in
            box = (LEFT, below / height_in, RIGHT - LEFT, band_in / height_in)
            made.append(figure.add_axes(box))
            below -= gap_in
        for axes in made:
            axes.set_facecolor("none")
            axes.set_xlim(0.0, duration_s)
            axes.tick_params(axis="x", labelbottom=False)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
        if sound is not None:
            _wave(made[0], sound)
            _spectrogram(made[1], sound, duration_s)
        if lanes or sound is None:
            _draw_lanes(made[-1], lanes, duration_s)
        made[-1].tick_params(axis="x", labelbottom=True)
        made[-1].set_xlabel("time from the start of the clip, s")
        return to_svg(figure, prefix, label)


def _wave(axes: Axes, sound: Sound) -> None:
    axes.fill_between(sound.times_s, sound.low, sound.high, color=colour("series-8"), linewidth=0, step="mid")
    peak = max(float(np.abs(sound.high).max(initial=0)), float(np.abs(sound.low).max(initial=0)), 1e-3)
    axes.set_ylim(-peak, peak)
    axes.set_yticks([-peak, 0, peak], [f"{-peak:.2g}", "0", f"{peak:.2g}"])
    axes.set_ylabel("amplitude", fontsize=8.5)
    axes.yaxis.set_label_coords(-0.078, 0.5)
    axes.tick_params(axis="y", labelsize=8)


def _spectrogram(axes: Axes, sound: Sound, duration_s: float) -> None:
    bands = len(sound.centres_hz)
    axes.imshow(
        sound.level_db, origin="lower", aspect="auto", interpolation="none", cmap="viridis",
        vmin=-80.0, vmax=0.0, extent=(0.0, sound.end_s, 0.0, float(bands)),
    )  # fmt: skip
    axes.set_xlim(0.0, duration_s)
    marks_hz = [mark for mark in (100, 300, 1000, 4000) if sound.centres_hz[0] <= mark <= sound.centres_hz[-1] * 1.05]
    places = np.interp(np.log(marks_hz), np.log(sound.centres_hz), np.arange(bands) + 0.5)
    axes.set_yticks(places, [f"{mark / 1000:g} kHz" if mark >= 1000 else f"{mark} Hz" for mark in marks_hz])
    axes.tick_params(axis="y", labelsize=8)
    axes.text(
        -0.078, 0.5, "frequency", transform=axes.transAxes, rotation=90, ha="center", va="center",
        fontsize=8.5, color=colour("quiet"),
    )  # fmt: skip


@dataclass(frozen=True)
class _Lane:
    """A row of the timelines: a title without `label`, or one class of one source."""

    title: str
    label: str | None
    events: tuple[Event, ...]


def _lanes(timelines: Sequence[Timeline]) -> list[_Lane]:
    lanes = []
    for timeline in timelines:
        lanes.append(_Lane(timeline.title, None, ()))
        labels = list(
            dict.fromkeys(event.label for event in sorted(timeline.events, key=lambda e: (e.start_s, e.label)))
        )
        for label in labels:
            lanes.append(_Lane(timeline.title, label, tuple(e for e in timeline.events if e.label == label)))
        if not labels:
            lanes.append(_Lane(timeline.title, "", ()))
    return lanes


def _draw_lanes(axes: Axes, lanes: Sequence[_Lane], duration_s: float) -> None:
    """Audio fills the upper half of a lane, visual the lower half, both the whole: position tells what colour tells."""
    from matplotlib.patches import Rectangle

    spans = {"audio": (0.5, 0.36), "visual": (0.14, 0.36), "both": (0.14, 0.72)}
    axes.set_ylim(0, max(len(lanes), 1))
    ticks, names = [], []
    for index, lane in enumerate(lanes):
        bottom = len(lanes) - 1 - index
        if lane.label is None:
            axes.text(
                -0.01, bottom + 0.42, plain(lane.title, 30), transform=axes.get_yaxis_transform(),
                ha="right", va="center", color=colour("quiet"), fontsize=8.5, style="italic",
            )  # fmt: skip
            if index:
                axes.axhline(bottom + 0.95, color=colour("line"), linewidth=0.8)
            continue
        if not lane.label:
            axes.text(
                0.006, bottom + 0.5, "no event", transform=axes.get_yaxis_transform(),
                ha="left", va="center", color=colour("quiet"), fontsize=8.5,
            )  # fmt: skip
            continue
        ticks.append(bottom + 0.5)
        names.append(plain(lane.label, 22))
        axes.axhline(bottom + 0.5, color=colour("line"), linewidth=0.5, zorder=0)
        for event in sorted(lane.events, key=lambda event: event.modality == "both"):  # on top of its halves
            start_s, end_s = max(event.start_s, 0.0), min(event.end_s, duration_s)
            low, height = spans.get(event.modality, spans["both"])
            axes.add_patch(
                Rectangle(
                    (start_s, bottom + low),
                    max(end_s - start_s, 0.0),
                    height,
                    facecolor=colour(event.modality if event.modality in spans else "both"),
                    linewidth=0,
                )
            )
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"), labelsize=9)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
