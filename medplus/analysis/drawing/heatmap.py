"""Cells with numbers on a coloured ground, in panels beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgba
from numpy.typing import NDArray

from medplus.analysis.drawing.style import INK, MISSING, NORMAL, PAPER, SMALL

MORE, LESS, MUCH = "#01665E", "#B06A1A", "#2272B4"

SEQUENTIAL = LinearSegmentedColormap.from_list(
    "medplus_sequential", [to_rgba(MUCH, 0), to_rgba(MUCH, 1)]
).with_extremes(bad=MISSING)
"""Nothing for nothing at all; the more opaque, the more."""

DIVERGING = LinearSegmentedColormap.from_list(
    "medplus_diverging",
    [
        (0, to_rgba(LESS, 1)),
        (0.5, to_rgba(LESS, 0)),
        (0.5, to_rgba(MORE, 0)),
        (1, to_rgba(MORE, 1)),
    ],
).with_extremes(bad=MISSING)
"""Brown below one half, green-blue above: colour-blind readers tell them apart."""

LIGHT, DARK = "#FDFDFD", "#161616"
"""Inks on a ground that is the same whether the page is light or dark."""

_DARK_PAPER = "#1A2029"


_PAD = 2.0
"""Between cells and the names of rows and columns, in points."""


@dataclass(frozen=True)
class Panel:
    """Rows × columns of cells under a title.

    Attributes
    ----------
    title : str
    columns : sequence of str
        What stands under them.
    shares : ndarray of shape (n_rows, n_columns)
        What the colour tells; NaN where there is none.
    texts : sequence of sequence of str
        What stands in the cells.
    """

    title: str
    columns: Sequence[str]
    shares: NDArray[np.float64]
    texts: Sequence[Sequence[str]]


def draw_panels(
    axes: Axes,
    panels: Sequence[Panel],
    rows: Sequence[str],
    colours: Colormap,
    largest: float = 1.0,
    gap: float = 0.25,
    size: float = SMALL,
) -> None:
    """Fill axes with panels from left to right.

    Parameters
    ----------
    axes : Axes
    panels : sequence of Panel
        All of the same rows.
    rows : sequence of str
        Their names.
    colours : Colormap
    largest : float, default 1.0
        The share that gets the last colour; 0 gets the first.
    gap : float
        Between panels, in columns.
    size : float
        Of the text in cells, in points.
    """
    left = 0.0
    ticks: list[float] = []
    labels: list[str] = []
    for panel in panels:
        n_rows, n_columns = panel.shares.shape
        axes.pcolormesh(
            left + np.arange(n_columns + 1),
            np.arange(n_rows + 1),
            np.ma.masked_invalid(panel.shares),
            cmap=colours,
            vmin=0.0,
            vmax=largest,
            edgecolors=PAPER,
            linewidth=0.8,
        )
        for (row, column), share in np.ndenumerate(panel.shares):
            if text := panel.texts[row][column]:
                ink = ink_on(colours(share / largest)) if np.isfinite(share) else INK
                place = left + column + 0.5, row + 0.5
                write(axes, *place, text, fontsize=size, color=ink)
        axes.text(left, -0.25, panel.title, va="bottom", fontsize=NORMAL)
        ticks += [left + column + 0.5 for column in range(n_columns)]
        labels += panel.columns
        left += n_columns + gap
    axes.set_xlim(0, left - gap)
    frame_rows(axes, rows)
    name_columns(axes, ticks, labels)


def panels_width(panels: Sequence[Panel], gap: float = 0.25) -> float:
    """Return the width of panels in columns."""
    return sum(len(panel.columns) + gap for panel in panels) - gap


def frame_rows(axes: Axes, rows: Sequence[str]) -> None:
    """Write a name beside each row, and draw neither frame nor ticks: these take long."""
    axes.set_ylim(len(rows), 0)
    axes.set_axis_off()
    where, *how = axes.get_yaxis_text1_transform(_PAD)
    for place, name in enumerate(rows):
        axes.text(0, place + 0.5, name, transform=where, va=how[0], ha=how[1])


def name_columns(axes: Axes, places: Sequence[float], names: Sequence[str], **options: Any) -> None:
    """Write a name under each column."""
    where, *how = axes.get_xaxis_text1_transform(_PAD)
    for place, name in zip(places, names, strict=True):
        axes.text(place, 0, name, transform=where, **{"va": how[0], "ha": how[1], **options})


def write(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Write into the middle of a cell."""
    axes.text(x, y, text, ha="center", va="center_baseline", **options)


def ink_on(ground: tuple[float, float, float, float]) -> str:
    """Return the ink that is readable on a colour over light and over dark paper.

    References
    ----------
    Contrast as WCAG 2.2 defines it.
    """
    on_light, on_dark = (_luminance(ground, paper) for paper in (PAPER, _DARK_PAPER))
    if 1.05 / (on_light + 0.05) > (on_light + 0.05) / 0.06:
        return LIGHT
    return INK if 0.87 / (on_dark + 0.05) >= 4 else DARK


def _luminance(ground: tuple[float, float, float, float], paper: str) -> float:
    colour, opacity = np.asarray(ground[:3]), ground[3]
    channels = opacity * colour + (1 - opacity) * np.asarray(to_rgba(paper)[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
