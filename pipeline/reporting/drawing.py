"""Matplotlib figures as inline SVG: same bytes for the same numbers, colours that follow the page's light or dark mode.

A figure is drawn with the colours of `COLOURS`; in the SVG they become CSS variables, so the page decides what ink is.
Text stays text.  No pyplot, no global state.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
