"""Panels of protocols, in each a row per backbone and in that a place per image size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, Look
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import FAINT, GREY, short_names, signs
from medplus.analysis.results.cells import Extent

_TOP, _BELOW, _GAP = 7.0, 10.0, 4.0
_PLACE, _THIN, _BETWEEN = 2.4, 1.5, 1.6
_MANY = 15
_PALEST = 0.35

Colour = tuple[float, float, float, float]


@dataclass(frozen=True)
class Place:
    """Where a backbone at an image size is drawn, and how.

    Attributes
    ----------
    backbone : str
    size : int
    label : str
        Both in words.
    middle : float
        In millimetres from the panel's top.
    colour : tuple of float
        The smaller the image size, the paler.
    sign : Look
        The backbone's.
    """

    backbone: str
    size: int
    label: str
    middle: float
    colour: Colour
    sign: Look


class Rows:
    """A figure of such panels.

    Parameters
    ----------
    frame : pandas.DataFrame
        With the columns protocol, backbone and size.
    backbones : pandas.Series
        All of the report, from which they have their colours.
    label : str
        Of the axis of scores.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    height : float
        Of a place, in millimetres.
    """

    def __init__(self, frame: pd.DataFrame, backbones: pd.Series, label: str) -> None:
        self._extent, self._signs = Extent.of(frame), signs(backbones)
        self._names = short_names(self._extent.backbones)
        n_rows, n_sizes = len(self._names), len(self._extent.sizes)
        self.height = _PLACE if n_rows <= _MANY else _THIN
        self._row = max(self.height * n_sizes + _BETWEEN, LINE + 1.0)
        left = MARGIN + text_width(self._names.values()) + 2.0
        n_panels, height = len(self._extent.protocols), self._row * n_rows
        width = (WIDE - left - MARGIN - (n_panels - 1) * _GAP) / n_panels
        sheet = Sheet(WIDE, _TOP + height + _BELOW + LINE + MARGIN)
        self.figure: Figure = sheet.figure
        self._panels = sheet.panels(n_panels, left, _TOP, width, height, _GAP)
        for axes in self._panels:
            axes.set_xlabel(label)
            self._separate(axes)
        shades = [(f"{s} px", Patch(facecolor=self._shade(GREY, s))) for s in self._extent.sizes]
        sheet.legend(left, _TOP + height + _BELOW, WIDE - left, shades)

    def panels(self) -> Iterator[tuple[str, Axes]]:
        """Yield each protocol and its axes."""
        for protocol, axes in zip(self._extent.protocols, self._panels, strict=True):
            axes.set_title(PROTOCOL_LABELS[protocol])
            yield protocol, axes

    def places(self) -> Iterator[Place]:
        """Yield the places of a panel from the top."""
        first = (self._row - self.height * (len(self._extent.sizes) - 1)) / 2
        for line, (backbone, name) in enumerate(self._names.items()):
            sign = self._signs[backbone]
            for place, size in enumerate(self._extent.sizes):
                middle = self._row * line + first + self.height * place
                label, colour = f"{name}, {size} px", self._shade(sign.colour, size)
                yield Place(backbone, size, label, middle, colour, sign)

    def _separate(self, axes: Axes) -> None:
        n_rows = len(self._names)
        middles = [self._row * (line + 0.5) for line in range(n_rows)]
        first = axes is self._panels[0]
        axes.set_yticks(middles, self._names.values() if first else [""] * n_rows)
        between = [self._row * line for line in range(1, n_rows)]
        over = axes.get_yaxis_transform()
        axes.hlines(between, 0, 1, color=FAINT, lw=0.6, zorder=0, transform=over)
        axes.set_ylim(self._row * n_rows, 0)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    def _shade(self, colour: str, size: int) -> Colour:
        steps = len(self._extent.sizes) - 1
        larger = self._extent.sizes.index(size) / steps if steps else 1.0
        return to_rgba(colour, _PALEST + (1 - _PALEST) * larger)
