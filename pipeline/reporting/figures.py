"""Matplotlib figures as inline SVG: same bytes for the same numbers, colours that follow the page's light or dark mode.

A figure is drawn with the colours of `COLOURS`; in the SVG they become CSS variables, so the page decides what ink is.
Text stays text.  No pyplot, no global state.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.manifest import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.reporting.sound import Sound

#: Drawn colour of each CSS variable.  The series are Okabe and Ito's, told apart by colour-blind readers.
COLOURS = {
    "ink": "#16181d",
    "quiet": "#5c6370",
    "line": "#d5d8de",
    "audio": "#0072b2",
    "visual": "#e69f00",
    "both": "#009e73",
    "series-1": "#0173b3",
    "series-2": "#d55e01",
    "series-3": "#019f74",
    "series-4": "#cc79a8",
    "series-5": "#e6a001",
    "series-6": "#56b4ea",
    "series-7": "#8c6d31",
    "series-8": "#5c6371",
}
SERIES = tuple(name for name in COLOURS if name.startswith("series-"))

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clave",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["quiet"],
    "axes.titlesize": 10,
    "axes.titlecolor": COLOURS["ink"],
    "axes.linewidth": 0.8,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["quiet"],
    "ytick.labelcolor": COLOURS["quiet"],
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def plain(text: object, longest: int = 40) -> str:
    """Text for a figure: no control characters, cut to a length."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def colour(name: str) -> str:
    return COLOURS[name]


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure without a window and without a background."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    return figure


def style():
    """Context in which a figure is drawn and written; matplotlib reads its settings at both moments."""
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element for a page.

    Args:
        prefix: unique in the page; ids of the SVG begin with it.
        label: what the picture shows, for people who do not see it.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label in a script that the measuring font lacks
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", text)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    for name, value in COLOURS.items():
        text = re.sub(rf"(fill|stroke): {value}", rf"\1: var(--{name})", text)
    # Text whose colour is black carries no fill; it must follow the page too.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    width_in = figure.get_size_inches()[0]
    return (
        f'{head} class="figure" role="img" aria-label="{_attribute(label)}" style="max-width:{width_in * 96:.0f}px">'
        + rest.strip()
    )


def _attribute(text: str) -> str:
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, entity)
    return _CONTROL.sub("", text)


# ---- curves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One curve of a panel; lines with the same `series` number share a colour."""

    label: str
    x: np.ndarray
    y: np.ndarray
    series: int = 0
    dashed: bool = False


def curves(panels: Sequence[tuple[str, Sequence[Line]]], x_label: str, prefix: str, label: str) -> str:
    """Panels side by side, two in a row, with one legend entry per distinct label.

    Args:
        panels: (y axis label, lines) each.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(4.7 * columns, 2.5 * rows + 0.5)
        for index, (y_label, lines) in enumerate(panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            for line in lines:
                one = len(line.x) == 1
                axes.plot(
                    line.x,
                    line.y,
                    color=colour(SERIES[line.series % len(SERIES)]),
                    linewidth=1.3,
                    linestyle="--" if line.dashed else "-",
                    marker="o" if one else None,
                    markersize=3,
                    alpha=0.85,
                    label=line.label,
                )
            _frame(axes, x_label, y_label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        handles: dict[str, object] = {}
        for axes in figure.axes:
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(name, handle)
        shown = list(handles)[:12]
        legend_rows = -(-len(shown) // 3)
        height = 2.5 * rows + 0.15 + 0.24 * legend_rows
        figure.set_size_inches(4.7 * columns, height)
        figure.legend(
            [handles[name] for name in shown],
            [plain(name) for name in shown],
            loc="lower center",
            ncols=min(len(shown), 3) or 1,
            frameon=False,
            fontsize=9,
        )
        figure.tight_layout(rect=(0, (0.24 * legend_rows + 0.05) / height, 1, 1))
        return to_svg(figure, prefix, label)


def _frame(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_facecolor("none")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(plain(x_label))
    axes.set_ylabel(plain(y_label))


# ---- scores ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreRow:
    """One row of the score picture: the score of every seed."""

    label: str
    values: tuple[float, ...]


def scores(rows: Sequence[ScoreRow], references: dict[str, float], unit: str, prefix: str, label: str) -> str:
    """A dot per seed, a bar at the mean, and a dashed line per reference."""
    with style():
        legend_in = 0.17 * len(references)
        height = 0.38 * max(len(rows), 2) + 0.6 + legend_in
        figure = new_figure(7.6, height)
        axes = figure.add_subplot()
        for index, row in enumerate(rows):
            y = len(rows) - 1 - index
            mean = float(np.mean(row.values))
            axes.plot([mean, mean], [y - 0.28, y + 0.28], color=colour("ink"), linewidth=2, solid_capstyle="butt")
            axes.plot(
                row.values, [y] * len(row.values), linestyle="none", marker="o", markersize=6,
                color=colour("series-1"), alpha=0.75, markeredgewidth=0,
            )  # fmt: skip
        for index, (name, value) in enumerate(references.items()):
            axes.axvline(
                value,
                color=colour(SERIES[(index + 1) % len(SERIES)]),
                linewidth=1.4,
                linestyle=("--", ":", "-.")[index % 3],
                label=f"{plain(name)}: {value:.1f}",
            )
        axes.set_yticks(range(len(rows)), [plain(row.label, 34) for row in reversed(rows)])
        axes.tick_params(axis="y", length=0, labelcolor=colour("ink"))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        everything = [value for row in rows for value in row.values] + list(references.values())
        low, high = min(everything, default=0.0), max(everything, default=1.0)
        margin = max(0.06 * (high - low), 0.5)
        axes.set_xlim(min(0.0, low - margin) if low < 35 else low - margin, high + margin)
        _frame(axes, unit, "")
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)
        if references:
            figure.legend(loc="lower left", ncols=1, frameon=False, fontsize=9, borderaxespad=0, labelspacing=0.2)
        figure.tight_layout(rect=(0, legend_in / height, 1, 1), pad=0.3)
        return to_svg(figure, prefix, label)


# ---- a clip ---------------------------------------------------------------------------------------------------------

CLIP_WIDTH_IN = 10.0
CLIP_LEFT, CLIP_RIGHT = 0.17, 0.985  # of the width; the page lays the thumbnails over the same stretch
_BAND_IN = {"wave": 0.75, "spectrogram": 1.15, "lane": 0.235, "title": 0.235}


@dataclass(frozen=True)
class Timeline:
    """Events of one clip by one source, ground truth or a model."""

    title: str
    events: tuple[Event, ...]


def clip(duration_s: float, sound: Sound | None, timelines: Sequence[Timeline], prefix: str, label: str) -> str:
    """Waveform, spectrogram and timelines of a clip above one time axis in seconds."""
    lanes = _lanes(timelines)
    bands = [] if sound is None else ["wave", "spectrogram"]
    heights = [_BAND_IN[band] for band in bands]
    lanes_in = sum(_BAND_IN["title" if lane.label is None else "lane"] for lane in lanes) + 0.08
    heights.append(max(lanes_in, 0.3))
    gap_in, top_in, bottom_in = 0.1, 0.06, 0.5
    height_in = sum(heights) + gap_in * (len(heights) - 1) + top_in + bottom_in
    with style():
        figure = new_figure(CLIP_WIDTH_IN, height_in)
        below = height_in - top_in
        made = []
        for band_in in heights:
            below -= band_in
            box = (CLIP_LEFT, below / height_in, CLIP_RIGHT - CLIP_LEFT, band_in / height_in)
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
    axes.yaxis.set_label_coords(-0.065, 0.5)
    axes.tick_params(axis="y", labelsize=8)


def _spectrogram(axes: Axes, sound: Sound, duration_s: float) -> None:
    bands = len(sound.centres_hz)
    axes.imshow(
        sound.level_db, origin="lower", aspect="auto", interpolation="none", cmap="viridis",
        vmin=-80.0, vmax=0.0, extent=(0.0, sound.end_s, 0.0, float(bands)),
    )  # fmt: skip
    axes.set_xlim(0.0, duration_s)
    marks_hz = [mark for mark in (100, 400, 1000, 4000) if sound.centres_hz[0] <= mark <= sound.centres_hz[-1] * 1.05]
    places = np.interp(np.log(marks_hz), np.log(sound.centres_hz), np.arange(bands) + 0.5)
    axes.set_yticks(places, [f"{mark / 1000:g} kHz" if mark >= 1000 else f"{mark} Hz" for mark in marks_hz])
    axes.tick_params(axis="y", labelsize=8)
    axes.text(
        -0.065, 0.5, "frequency", transform=axes.transAxes, rotation=90, ha="center", va="center",
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
        for event in lane.events:
            start_s, end_s = max(event.start_s, 0.0), min(event.end_s, duration_s)
            low, height = spans.get(event.modality, spans["both"])
            axes.add_patch(
                Rectangle(
                    (start_s, bottom + low),
                    max(end_s - start_s, 0.0),
                    height,
                    facecolor=colour(event.modality if event.modality in spans else "both"),
                    linewidth=0,
                )  # fmt: skip
            )
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"), labelsize=9)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
