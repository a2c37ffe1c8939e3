"""Figure 6: accuracy against what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from medplus.naming import counted
from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import GREY, INK, PAPER, Sign, short_names, signs
from medplus.reporting.palette import PROTOCOL_COLOURS, PROTOCOL_LABELS, setting_label
from medplus.reporting.series import Extent

_TOP, _LEFT, _BELOW, _HEIGHT, _GAP = 4.0, 12.0, 10.0, 95.0, 6.0
_SMALLEST, _LARGEST = 3.5, 8.0
_AROUND = 1.8


def draw_cost(analysis: Analysis) -> Figure | None:
    """Draw mean ACC over mean device seconds of each protocol, backbone and size."""
    costs = analysis.costs
    if costs.empty or not (costs["device_seconds"] > 0).any():
        return None
    costs = costs[costs["device_seconds"] > 0]
    extent, drawn = Extent.of(costs), signs(analysis.cells["backbone"])
    entries = _entries(extent, drawn)
    beside = text_width(label for label, _ in entries) + 9.0
    height = max(_HEIGHT, len(entries) * LINE)
    sheet = Sheet(WIDE, _TOP + height + _BELOW + MARGIN)
    axes = sheet.axes(_LEFT, _TOP, WIDE - _LEFT - beside - _GAP - MARGIN, height)
    _draw_points(axes, costs, drawn, extent.sizes)
    _draw_front(axes, costs)
    _label_cost(axes, costs)
    over = counted(int(costs["n_datasets"].max()), "dataset")
    axes.set_ylabel(f"mean ACC over {over}, %")
    sheet.legend(WIDE - beside - MARGIN, _TOP, beside, entries)
    return sheet.figure


def _draw_points(
    axes: Axes, costs: pd.DataFrame, drawn: Mapping[str, Sign], sizes: Sequence[int]
) -> None:
    names = short_names(list(drawn))
    for row in costs.itertuples():
        sign = drawn[row.backbone]
        axes.plot(
            [row.device_seconds],
            [row.acc],
            linestyle="none",
            marker=sign.marker,
            markersize=_marker_size(row.size, sizes) * sign.scale,
            color=PROTOCOL_COLOURS[row.protocol],
            markeredgecolor=INK if row.front else PAPER,
            markeredgewidth=0.8 if row.front else 0.4,
            label=f"{names[row.backbone]}, {setting_label(row.protocol, row.size)}",
            zorder=4 if row.front else 3,
        )


def _draw_front(axes: Axes, costs: pd.DataFrame) -> None:
    """Draw the best ACC that can be had for at most so many seconds."""
    front = costs[costs["front"].astype(bool)].sort_values("device_seconds")
    axes.plot(
        front["device_seconds"],
        front["acc"],
        drawstyle="steps-post",
        color=GREY,
        linewidth=0.9,
        label="front",
        zorder=2,
    )


def _label_cost(axes: Axes, costs: pd.DataFrame) -> None:
    low, high = costs["device_seconds"].min(), costs["device_seconds"].max()
    axes.set_xscale("log")
    low, high = low / _AROUND, high * _AROUND
    axes.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    steps = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 3000 else (1,)
    axes.xaxis.set_major_locator(FixedLocator([m * 10.0**d for d in decades for m in steps]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel("measured cost of one run, extraction included, device seconds (log scale)")
    axes.grid()


def _entries(extent: Extent, drawn: Mapping[str, Sign]) -> list[tuple[str, Line2D]]:
    def handle(marker: str = "o", markersize: float = 6.0, **options: Any) -> Line2D:
        style = {"linestyle": "none", "markeredgecolor": PAPER, "color": GREY, **options}
        return Line2D([], [], marker=marker, markersize=markersize, **style)

    names = short_names(extent.backbones)
    backbones = ((names[one], drawn[one]) for one in extent.backbones)
    front = handle(color=PAPER, markeredgecolor=INK, markeredgewidth=0.8)
    return [
        *((PROTOCOL_LABELS[one], handle(color=PROTOCOL_COLOURS[one])) for one in extent.protocols),
        *((name, handle(sign.marker, 5 * sign.scale)) for name, sign in backbones),
        *((f"{s} px", handle(markersize=_marker_size(s, extent.sizes))) for s in extent.sizes),
        ("Pareto front", front),
    ]


def _marker_size(size: int, sizes: Sequence[int]) -> float:
    if len(sizes) == 1:
        return (_SMALLEST + _LARGEST) / 2
    return _SMALLEST + (_LARGEST - _SMALLEST) * list(sizes).index(size) / (len(sizes) - 1)
