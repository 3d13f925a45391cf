"""Figures of numbers: learning curves, and scores against references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.reporting.drawing import SERIES, colour, new_figure, plain, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Legend entries that come first.
ORDER = ("train", "val", "test")


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
        shown = sorted(handles, key=lambda name: (name not in ORDER, ORDER.index(name) if name in ORDER else 0))[:12]
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
