"""A figure as a sheet of paper: everything has its place in millimetres from the top left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from medplus.analysis.drawing.palette import Look
from medplus.analysis.drawing.style import GREY, NORMAL, SMALL

WIDE = 180.0
"""Millimetres: a page's text is about as wide."""

MARGIN = 3.0
LINE = 3.6
"""Millimetres from one line of text to the next."""

_INCH = 25.4
_POINT = _INCH / 72
_HANDLE, _BETWEEN = 7.8, 4.0
_MEASURE = TextToPath()


def text_width(texts: Iterable[str]) -> float:
    """Return the width in millimetres of the widest text of normal size."""
    font = FontProperties(size=NORMAL)
    widths = (_MEASURE.get_text_width_height_descent(t, font, ismath=False)[0] for t in texts)
    return max(widths, default=0.0) * _POINT


class Sheet:
    """A figure, and where things are put on it.

    Parameters
    ----------
    width, height : float
        Millimetres.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _INCH, height / _INCH))
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes whose inner frame is this rectangle."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def panels(
        self, n: int, left: float, top: float, width: float, height: float, gap: float
    ) -> list[Axes]:
        """Return axes beside each other, each of this width."""
        return [self.axes(left + i * (width + gap), top, width, height) for i in range(n)]

    def text(self, left: float, top: float, text: str, **options: Any) -> None:
        """Put a text, its top left corner at this place."""
        place = left / self.width, 1 - top / self.height
        self.figure.text(*place, text, va="top", ha="left", **options)

    def note(self, left: float, top: float, text: str) -> None:
        """Put a small grey text."""
        self.text(left, top, text, fontsize=SMALL, color=GREY)

    def legend(
        self, left: float, top: float, width: float, entries: Sequence[tuple[str, Artist]]
    ) -> None:
        """Put a legend in as many columns as fit; entries go down the columns."""
        labels = [label for label, _ in entries]
        legend = self.figure.legend(
            [handle for _, handle in entries],
            # matplotlib leaves out labels that begin with an underscore; names come in below.
            ["x"] * len(entries),
            loc="upper left",
            bbox_to_anchor=(left / self.width, 1 - top / self.height),
            ncols=_columns(labels, width),
            labelspacing=0.45,
            handletextpad=0.6,
            columnspacing=1.6,
            borderpad=0.0,
        )
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)


class Key:
    """The legend of a figure's backbones.

    Parameters
    ----------
    names : mapping of str to str
        What each backbone is called, as `medplus.analysis.drawing.style.short_names` has it.
    drawn : mapping of str to Look
    size : float
        Of markers, in points.
    line : bool
        Whether lines are drawn too.

    Attributes
    ----------
    height : float
        Millimetres that it takes across a sheet of `WIDE`.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        drawn: Mapping[str, Look],
        size: float = 4.0,
        line: bool = True,
    ) -> None:
        self.entries = [
            (text, Line2D([], [], **look.style(size), linestyle=look.line if line else "none"))
            for text, look in ((names[name], drawn[name]) for name in names)
        ]
        self.height = legend_height(list(names.values()), WIDE - 2 * MARGIN)

    def put(self, sheet: Sheet, top: float) -> None:
        """Put it across a sheet."""
        sheet.legend(MARGIN, top, WIDE - 2 * MARGIN, self.entries)


def legend_height(labels: Sequence[str], width: float) -> float:
    """Return the height in millimetres that a legend takes."""
    return -(-len(labels) // _columns(labels, width)) * LINE


def _columns(labels: Sequence[str], width: float) -> int:
    """Return the largest number of columns that fit; matplotlib gives the first ones more rows."""
    widths = [_HANDLE + text_width([label]) for label in labels]
    for n_columns in range(len(labels), 1, -1):
        columns = np.array_split(widths, n_columns)
        if sum(column.max() for column in columns) + _BETWEEN * (n_columns - 1) <= width:
            return n_columns
    return 1
