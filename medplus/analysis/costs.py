"""Accuracy against measured cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import (
    PROTOCOL_COLOURS,
    PROTOCOL_LABELS,
    Look,
    label_of,
    setting_label,
)
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import GREY, INK, PAPER, short_names, signs
from medplus.analysis.format import first_upper
from medplus.analysis.results.cells import AVERAGE, Extent, sort_cells
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table
from medplus.naming import counted

_SETTING = ["protocol", "backbone", "size"]
_COLUMNS = [*_SETTING, "acc", "device_seconds", "n_datasets", "front"]
_TOP, _LEFT, _BELOW, _HEIGHT, _GAP = 4.0, 12.0, 10.0, 95.0, 6.0
_SMALLEST, _LARGEST = 3.5, 8.0
_AROUND = 1.8


def costs(benchmark: Benchmark) -> Section | None:
    """Return what accuracy costs; None where fewer than two settings were measured."""
    found = pareto(benchmark.cells)
    drawn = found[found["device_seconds"] > 0]
    if len(drawn) < 2:
        return None
    caption = "Mean ACC in percent and measured device seconds of one run, extraction included"
    sentences = near_the_best(found, len(benchmark.cells[_SETTING].drop_duplicates()))
    notes = [
        "Device seconds of one run: all of a fine-tuning; of a head its own share and the whole "
        "extraction of its embeddings."
    ]
    devices = sorted(set(() if benchmark.runs is None else benchmark.runs["device"]) - {""})
    if len(devices) > 1:
        notes.append(
            f"They were measured on different devices ({', '.join(devices)}), and compare only "
            "roughly."
        )
    return Section(
        name="costs",
        title="Accuracy against cost",
        short="Cost",
        text="Mean ACC over the measured device time of one run, extraction included. On the "
        "Pareto front stands what no other setting beats or equals at the same or a lower cost.",
        tables=(Table.of("costs", caption, found, " ".join(_COLUMNS)),),
        figures=(
            Figure(
                "fig6_cost",
                "Points: mean ACC over device seconds, and the Pareto front.",
                partial(_draw, drawn, benchmark.backbones),
            ),
        ),
        sentences=tuple(sentences),
        notes=tuple(notes),
    )


def pareto(cells: pd.DataFrame) -> pd.DataFrame:
    """Return mean ACC and mean cost of each protocol, backbone and size, and which are worth it.

    Both are means over the datasets on which every setting of the table that was measured at all
    was measured: costs of different datasets cannot be compared.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`. `device_seconds` is NaN where it was not measured; the
        paper's numbers have none.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, backbone, size, acc (percent), device_seconds, n_datasets, front. `front`
        is true where no other is at most as costly and at least as accurate, and better in one.
        Empty where nothing was measured, or the settings share no dataset.
    """
    if "device_seconds" not in cells.columns:
        return pd.DataFrame(columns=_COLUMNS)
    measured = cells.dropna(subset=["acc_mean", "device_seconds"])
    n_settings = len(measured[_SETTING].drop_duplicates())
    shared = measured[measured.groupby("dataset")["size"].transform("size") == n_settings]
    # In a fixed order, as the last digit of a mean depends on it.
    groups = shared.sort_values("dataset").groupby(_SETTING)
    table = groups.agg(
        acc=("acc_mean", "mean"),
        device_seconds=("device_seconds", "mean"),
        n_datasets=("dataset", "size"),
    ).reset_index()
    acc, cost = settle(table["acc"].to_numpy()), table["device_seconds"].to_numpy()
    table = table.assign(front=_undominated(acc, cost), dataset=AVERAGE)
    return sort_cells(table)[_COLUMNS]


def _undominated(acc: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Row: the one that may be dominated; column: the one that may dominate it.
    no_worse = (acc >= acc[:, None]) & (cost <= cost[:, None])
    better = (acc > acc[:, None]) | (cost < cost[:, None])
    undominated: NDArray[np.bool_] = ~np.any(no_worse & better, axis=1)
    return undominated


def near_the_best(front: pd.DataFrame, n_settings: int) -> Iterator[str]:
    """Yield the cheapest way to nearly the best mean ACC, of those whose cost was measured."""
    if len(front) < 2:
        return
    acc = settle(front["acc"])
    # Of equally good ones the cheapest is the best.
    best = front.loc[front.loc[acc == acc.max(), "device_seconds"].idxmin()]
    near = front[settle(front["acc"] - best["acc"]) >= -1.0]
    cheapest = near.loc[near["device_seconds"].idxmin()]
    of = ""
    if len(front) < n_settings:
        of = f"Of the {len(front)} of {n_settings} settings whose cost was measured: "
    if cheapest.name == best.name:
        said = f"nothing cheaper comes within 1 point of the best: {_setting(best)}."
    else:
        share = 100 * cheapest["device_seconds"] / best["device_seconds"]
        said = (
            f"{_setting(cheapest)} comes within 1 point of the best "
            f"({_setting(best)}) for {share:.{0 if share >= 1 else 2}f} % of its device time."
        )
    yield of + said if of else first_upper(said)


def _setting(row: pd.Series) -> str:
    return f"{PROTOCOL_LABELS[row['protocol']]} of {label_of(row['backbone'])} at {row['size']} px"


def _draw(costs: pd.DataFrame, backbones: pd.Series) -> Drawing:
    """Draw mean ACC over mean device seconds of each protocol, backbone and size."""
    extent, drawn = Extent.of(costs), signs(backbones)
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
    axes: Axes, costs: pd.DataFrame, drawn: Mapping[str, Look], sizes: Sequence[int]
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


def _entries(extent: Extent, drawn: Mapping[str, Look]) -> list[tuple[str, Line2D]]:
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
