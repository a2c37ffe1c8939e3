"""Cells with numbers on a coloured ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import NDArray

from medplus.reporting.figures.style import INK, MISSING, SMALL

SEQUENTIAL = LinearSegmentedColormap.from_list(
    "medplus_sequential", ["#FFFFFF", "#CBDDEE", "#86B4D8", "#3B7FB6", "#0B4A84", "#06294D"]
)
"""White for nothing at all; the darker, the more."""

DIVERGING = LinearSegmentedColormap.from_list(
    "medplus_diverging", ["#8C510A", "#D8B365", "#F6F1E4", "#5AB4AC", "#01665E"]
)
"""Brown below one half, green-blue above: colour-blind readers tell them apart."""


def draw_heatmap(
    axes: Axes,
    shares: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    colours: Colormap,
    largest: float = 1.0,
    size: float = SMALL,
) -> None:
    """Fill axes with cells.

    Parameters
    ----------
    axes : Axes
    shares : ndarray of shape (n_rows, n_columns)
        What the colour tells, from 0 to `largest`; NaN where there is none.
    texts : sequence of sequence of str
        What stands in the cells.
    colours : Colormap
    largest : float, default 1.0
        The share that gets the last colour.
    size : float
        Of the text, in points.
    """
    n_rows, n_columns = shares.shape
    axes.set_facecolor(MISSING)
    axes.pcolormesh(
        np.ma.masked_invalid(shares),
        cmap=colours,
        vmin=0.0,
        vmax=largest,
        edgecolors="white",
        linewidth=0.8,
    )
    for row in range(n_rows):
        for column in range(n_columns):
            share = shares[row, column]
            ground = colours(share / largest) if np.isfinite(share) else (1.0, 1.0, 1.0, 1.0)
            axes.text(
                column + 0.5,
                row + 0.5,
                texts[row][column],
                ha="center",
                va="center_baseline",
                fontsize=size,
                color=readable_on(ground),
            )
    axes.set_xlim(0, n_columns)
    axes.set_ylim(n_rows, 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def readable_on(ground: tuple[float, float, float, float]) -> str:
    """Return the ink, black or white, that is easier to read on a colour (WCAG's luminance)."""
    channels = np.asarray(ground[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.06 else INK


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write a name beside each row."""
    axes.set_yticks([place + 0.5 for place in range(len(names))], names)


def label_columns(axes: Axes, names: Sequence[str]) -> None:
    """Write a name under each column."""
    axes.set_xticks([place + 0.5 for place in range(len(names))], names)
