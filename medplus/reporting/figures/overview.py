"""Figure 1: mean accuracy over datasets by image size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import (
    MARGIN,
    WIDE,
    Sheet,
    backbone_handle,
    backbone_style,
    legend_height,
)
from medplus.analysis.drawing.style import Sign, short_names, signs
from medplus.analysis.results.cells import AVERAGE
from medplus.analysis.series import Extent
from medplus.reporting.analysis import Analysis

_TOP, _LEFT, _BELOW, _GAP = 7.0, 13.0, 12.0, 9.0
_HIGH, _LOW, _WIDEST = 72.0, 50.0, 85.0


def draw_overview(analysis: Analysis) -> Figure | None:
    """Draw a panel per protocol and in it a line per backbone."""
    rows = analysis.benchmark[analysis.benchmark["dataset"] == AVERAGE]
    rows = rows.dropna(subset="acc_mean")
    if rows.empty:
        return None
    extent, drawn = Extent.of(rows), signs(analysis.cells["backbone"])
    names, several = short_names(extent.backbones), len(extent.sizes) > 1
    height = _HIGH if several else _LOW
    below = _TOP + height + _BELOW
    sheet = Sheet(WIDE, below + legend_height(list(names.values()), WIDE - 2 * MARGIN) + MARGIN)
    n_panels = len(extent.protocols)
    width = min(_WIDEST, (WIDE - _LEFT - MARGIN - (n_panels - 1) * _GAP) / n_panels)
    panels = sheet.panels(n_panels, _LEFT, _TOP, width, height, _GAP)
    for axes, protocol in zip(panels, extent.protocols, strict=True):
        _draw_panel(axes, rows[rows["protocol"] == protocol], extent, drawn, names)
        axes.set_title(f"{PROTOCOL_LABELS[protocol]}, {_n_datasets(analysis.cells, protocol)}")
    panels[0].set_ylabel(f"mean ACC, %{' (scales differ)' if n_panels > 1 else ''}")
    entries = [(names[name], backbone_handle(drawn[name], line=several)) for name in names]
    sheet.legend(MARGIN, below, WIDE - 2 * MARGIN, entries)
    return sheet.figure


def _draw_panel(
    axes: Axes,
    rows: pd.DataFrame,
    extent: Extent,
    drawn: Mapping[str, Sign],
    names: Mapping[str, str],
) -> None:
    backbones, sizes = extent.backbones, extent.sizes
    for backbone, shift in zip(backbones, _apart(len(backbones), len(sizes)), strict=True):
        of_it = rows[rows["backbone"] == backbone].set_index("size")["acc_mean"].reindex(sizes)
        axes.plot(
            np.arange(len(sizes)) + shift,
            of_it.to_numpy(),
            label=names[backbone],
            linestyle=drawn[backbone].line,
            **backbone_style(drawn[backbone]),
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.3 if len(sizes) > 1 else -0.5, len(sizes) - (0.7 if len(sizes) > 1 else 0.5))
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.set_xlabel("image size, px")
    axes.grid(axis="y")


def _apart(n_backbones: int, n_sizes: int) -> list[float]:
    """Return how far signs are moved aside: at one size alone they would lie upon each other."""
    if n_sizes > 1 or n_backbones == 1:
        return [0.0] * n_backbones
    return [float(shift) for shift in np.linspace(-0.35, 0.35, n_backbones)]


def _n_datasets(cells: pd.DataFrame, protocol: str) -> str:
    """Say over how many datasets the panel's means are; sizes may have different numbers."""
    rows = cells[cells["protocol"] == protocol]
    counts = rows.groupby("size")["dataset"].nunique()
    low, high = counts.min(), counts.max()
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} dataset{'s' if high > 1 else ''}"
