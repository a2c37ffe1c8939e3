"""Figure 6: accuracy against what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.figures.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import (
    GREY,
    INK,
    Sign,
    short_names,
    signs,
)
from medplus.reporting.palette import PROTOCOL_COLOURS, PROTOCOL_LABELS

_TOP, _LEFT, _BELOW, _HEIGHT, _GAP = 4.0, 12.0, 10.0, 95.0, 6.0
_SMALLEST, _LARGEST = 3.5, 8.0
_AROUND = 1.8


def draw_cost(analysis: Analysis) -> Figure | None:
    """Draw mean ACC over mean device seconds of each protocol, backbone and size."""
    costs = analysis.costs
    if costs.empty or not (costs["device_seconds"] > 0).any():
        return None
    costs = costs[costs["device_seconds"] > 0]
    backbones, protocols = order_backbones(costs["backbone"]), order_protocols(costs["protocol"])
    sizes = sorted(set(costs["size"]))
    names, drawn = short_names(backbones), signs(analysis.cells["backbone"])
    entries = _entries(backbones, protocols, sizes, names, drawn)
    beside = text_width(label for label, _ in entries) + 9.0
    height = max(_HEIGHT, len(entries) * LINE)
    sheet = Sheet(WIDE, _TOP + height + _BELOW + MARGIN)
    axes = sheet.axes(_LEFT, _TOP, WIDE - _LEFT - beside - _GAP - MARGIN, height)
    _draw_points(axes, costs, drawn, sizes)
    _draw_front(axes, costs)
    _label_cost(axes, costs)
    axes.set_ylabel(f"mean ACC over {_datasets(costs)}, %")
    sheet.legend(WIDE - beside - MARGIN, _TOP, beside, entries)
    return sheet.figure


def _draw_points(
    axes: Axes, costs: pd.DataFrame, drawn: Mapping[str, Sign], sizes: Sequence[int]
) -> None:
    for row in costs.itertuples():
        sign = drawn[row.backbone]
        axes.plot(
            [row.device_seconds],
            [row.acc],
            linestyle="none",
            marker=sign.marker,
            markersize=_marker_size(row.size, sizes) * sign.scale,
            color=PROTOCOL_COLOURS[row.protocol],
            markeredgecolor=INK if row.front else "white",
            markeredgewidth=0.8 if row.front else 0.4,
            label=f"{row.protocol}, {row.backbone}, {row.size}",
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


def _entries(
    backbones: Sequence[str],
    protocols: Sequence[str],
    sizes: Sequence[int],
    names: Mapping[str, str],
    drawn: Mapping[str, Sign],
) -> list[tuple[str, Line2D]]:
    def handle(**options: object) -> Line2D:
        return Line2D([], [], **({"linestyle": "none", "markeredgecolor": "white"} | options))  # type: ignore[arg-type]

    entries = [
        (PROTOCOL_LABELS[name], handle(marker="o", markersize=6, color=PROTOCOL_COLOURS[name]))
        for name in protocols
    ]
    entries += [
        (
            names[name],
            handle(marker=drawn[name].marker, markersize=5 * drawn[name].scale, color=GREY),
        )
        for name in backbones
    ]
    entries += [
        (f"{size} px", handle(marker="o", markersize=_marker_size(size, sizes), color=GREY))
        for size in sizes
    ]
    front = handle(
        marker="o", markersize=6, color="white", markeredgecolor=INK, markeredgewidth=0.8
    )
    return [*entries, ("Pareto front", front)]


def _marker_size(size: int, sizes: Sequence[int]) -> float:
    if len(sizes) == 1:
        return (_SMALLEST + _LARGEST) / 2
    return _SMALLEST + (_LARGEST - _SMALLEST) * list(sizes).index(size) / (len(sizes) - 1)


def _datasets(costs: pd.DataFrame) -> str:
    number = int(costs["n_datasets"].max())
    return f"{number} dataset{'s' if number > 1 else ''}"
