"""The charts of tests, intervals, costs and predictions; see `charts`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.cells import order_backbones
from medplus.reporting.page import chart_parts as parts
from medplus.reporting.page.parts import Chart
from medplus.reporting.palette import PROTOCOL_LABELS, look_of
from medplus.reporting.series import Extent
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer

_PROTOCOL_SYMBOLS = {"finetune": "circle", "probe": "diamond", "knn": "square"}
_MOST_LEVELS = 4.0
_WITH_TEXT = {
    "zmin": -_MOST_LEVELS,
    "zmax": _MOST_LEVELS,
    "texttemplate": "%{text}",
    "hovertemplate": "%{hovertext}<extra></extra>",
    "hoverongaps": False,
    "colorscale": "diverging",
}


def pairwise(tests: pd.DataFrame) -> Chart:
    """Every pair's p value; tinted by how small it is, and by which of the two is favoured."""
    names = order_backbones([*tests["backbone_a"], *tests["backbone_b"]])
    labels = parts.axis_labels(names)
    cells = {
        (one, other): _pair(row, labels[one], labels[other], one, names)
        for row in tests.itertuples(index=False)
        if not math.isnan(row.p_value)
        for one, other in (
            (row.backbone_a, row.backbone_b), (row.backbone_b, row.backbone_a),
        )
    }  # fmt: skip
    z, texts, hovers = (
        [[cells.get((one, other), (None, "", ""))[part] for other in names] for one in names]
        for part in range(3)
    )
    shown = list(labels.values())
    axis = {"showgrid": False, **parts.categories(shown)}
    layout = {
        "xaxis": {"side": "top", "tickangle": -40, **axis},
        "yaxis": {"autorange": "reversed", **axis},
    }
    trace = parts.heatmap(shown, shown, z, text=texts, hovertext=hovers, **_WITH_TEXT)
    return Chart(
        "chart-pairwise",
        "Matrix: the p value of every pair of backbones. The table below holds the same numbers.",
        {"": {"data": [trace], "layout": layout}},
        height=160 + 42 * len(names),
        narrow_height=160 + 42 * len(names),
        min_width=180 + 68 * len(names),
    )


def _pair(
    row: Any, label: str, other: str, backbone: str, names: Sequence[str]
) -> tuple[float, str, str]:
    """Return a cell's tint, its text, and what is said of it."""
    level = min(-math.log10(max(row.p_value, 1e-12)), _MOST_LEVELS)
    sign = 0 if not row.favoured else 1 if row.favoured == backbone else -1
    before, after = ("<b>", " ●</b>") if row.significant else ("", "")
    better = look_of(row.favoured, names).label if row.favoured else "neither"
    said = (
        f"{label} against {other}<br>p = {fmt.significant(row.p_value)}, "
        f"{'' if row.significant else 'not '}significant "
        f"(threshold {fmt.significant(row.threshold)})<br>higher mean: {parts.plain(better)}"
    )
    return round(sign * level, 4), f"{before}{fmt.significant(row.p_value, 2)}{after}", said


def mean_ranks(result: Friedman) -> Chart:
    """Mean ranks, half the critical difference to each side: overlaps are not told apart."""
    ranks = result.mean_ranks.sort_values()
    names = list(ranks.index)
    half = fmt.json_number(result.critical_difference / 2)
    trace = parts.named_points(
        ranks,
        names,
        names,
        error_x={"type": "constant", "value": half, "thickness": 3, "width": 0},
        hovertemplate="%{y}: mean rank %{x:.2f}<extra></extra>",
    )
    layout = {
        "xaxis": parts.titled("mean rank (1 is best)", tickvals=list(range(1, len(names) + 1))),
        "yaxis": parts.NAMES_DOWN,
        "showlegend": False,
    }
    return Chart(
        "chart-friedman",
        "Points: the mean rank of every backbone, with half the critical difference to each side.",
        {"": {"data": [trace], "layout": layout}},
        height=110 + 36 * len(names),
        narrow_height=110 + 34 * len(names),
    )


def dataset_intervals(intervals: pd.DataFrame) -> Chart:
    """Mean ACC with its interval over datasets; one variant per protocol and size."""
    extent = Extent.of(intervals)
    groups = dict(iter(intervals.groupby(["protocol", "size"])))
    layout = {
        "xaxis": parts.titled("mean ACC (%), 95 % interval over datasets"),
        "yaxis": parts.NAMES_DOWN,
        "showlegend": False,
    }
    variants = {
        f"{PROTOCOL_LABELS[protocol]}, {size} px": {
            "data": [_intervals(groups[protocol, size], extent.backbones)],
            "layout": layout,
        }
        for protocol in extent.protocols
        for size in reversed(extent.sizes)
        if (protocol, size) in groups
    }
    return Chart(
        "chart-intervals",
        "Points with bars: mean ACC of every backbone and its 95 % interval over datasets.",
        variants,
        choose="Setting",
        height=110 + 36 * len(extent.backbones),
        narrow_height=110 + 34 * len(extent.backbones),
    )


def _intervals(rows: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Any]:
    rows = rows.sort_values("mean", ascending=False)
    return parts.named_points(
        rows["mean"],
        list(rows["backbone"]),
        backbones,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": fmt.json_numbers(rows["high"] - rows["mean"]),
            "arrayminus": fmt.json_numbers(rows["mean"] - rows["low"]),
            "thickness": 3,
            "width": 0,
        },
        text=[
            f"{parts.plain(look_of(row.backbone, backbones).label)}: {fmt.read_percent(row.mean)} "
            f"({fmt.interval(row.low, row.high)})"
            for row in rows.itertuples(index=False)
        ],
        hovertemplate=parts.HOVER,
    )


def pareto(costs: pd.DataFrame) -> Chart:
    """ACC over measured device seconds; the line joins what nothing else beats in both."""
    extent = Extent.of(costs)
    front = costs[costs["front"]].sort_values("device_seconds")
    joined = parts.line(
        front["device_seconds"], front["acc"], 1.5, name="Pareto front", line={"shape": "hv"}
    )
    points = [_costs(costs[costs["backbone"] == name], extent) for name in extent.backbones]
    layout = {
        "xaxis": parts.titled("device seconds per run (log)", type="log"),
        "yaxis": parts.titled("mean ACC (%)"),
        "legend": parts.LEGEND_BELOW,
    }
    return Chart(
        "chart-costs",
        "Points: ACC over device seconds. The table below says which are on the Pareto front.",
        {"": {"data": [joined, *points], "layout": layout}},
        height=540,
        narrow_height=620,
    )


def _costs(rows: pd.DataFrame, extent: Extent) -> dict[str, Any]:
    look = look_of(rows["backbone"].iloc[0], extent.backbones)
    return parts.scatter(
        rows["device_seconds"],
        rows["acc"],
        "markers",
        name=parts.plain(look.label),
        text=[
            f"{parts.plain(row.backbone)}<br>{PROTOCOL_LABELS[row.protocol]}, {row.size} px<br>"
            f"ACC {fmt.read_percent(row.acc)} % for {fmt.read_seconds(row.device_seconds)}"
            + ("<br>on the front" if row.front else "")
            for row in rows.itertuples(index=False)
        ],
        hovertemplate=parts.HOVER,
        marker={
            "color": look.colour,
            "symbol": [_PROTOCOL_SYMBOLS[protocol] for protocol in rows["protocol"]],
            "size": [9 + 3 * extent.sizes.index(size) for size in rows["size"]],
            "opacity": [1.0 if front else 0.55 for front in rows["front"]],
        },
    )


def transfers(results: Sequence[Transfer]) -> Chart:
    """Ranks by a cheap protocol against ranks by an expensive one; one variant per pair."""
    return Chart(
        "chart-transfers",
        "Points: rank by the cheap protocol against rank by the expensive one.",
        {result.label: _transfer(result) for result in results},
        choose="Pair",
        height=560,
        narrow_height=620,
    )


def _transfer(result: Transfer) -> dict[str, Any]:
    """Return single ranks, moved apart where they coincide, and each backbone's mean of them."""
    backbones = order_backbones(result.means.index)
    last = len(backbones) + 0.7
    axis = {"range": [0.3, last], "dtick": 1, "zeroline": False}
    x_title, y_title = (
        f"rank by {PROTOCOL_LABELS[protocol]}, {size} px"
        for protocol, size in (result.cheap, result.target)
    )
    diagonal = parts.line((0.5, last), (0.5, last), 1, showlegend=False)
    traces = [trace for name in backbones for trace in _ranks(result, name, backbones)]
    return {
        "data": [diagonal, *traces],
        "layout": {
            "xaxis": parts.titled(x_title, **axis),
            "yaxis": parts.titled(y_title, **axis),
            "legend": parts.LEGEND_BELOW,
        },
    }


def _ranks(result: Transfer, name: str, backbones: Sequence[str]) -> list[dict[str, Any]]:
    rows = result.points[result.points["backbone"] == name].sort_values("dataset")
    mean, look = result.means.loc[[name]], look_of(name, backbones)
    angles = 2 * np.pi * (backbones.index(name) / len(backbones) + np.arange(len(rows)) * 0.382)
    named = {"name": parts.plain(look.label), "legendgroup": parts.plain(name)}
    drawn = {"color": look.colour, "symbol": look.symbol}
    single = parts.scatter(
        rows["cheap_rank"] + 0.24 * np.cos(angles),
        rows["target_rank"] + 0.24 * np.sin(angles),
        "markers",
        **named,
        showlegend=False,
        text=[
            f"{parts.plain(row.dataset)}, {parts.plain(row.backbone)}<br>"
            f"rank {row.cheap_rank:g} → {row.target_rank:g}"
            for row in rows.itertuples(index=False)
        ],
        hovertemplate=parts.HOVER,
        marker={**drawn, "size": 7, "opacity": 0.55},
    )
    over_datasets = parts.scatter(
        mean["cheap_rank"],
        mean["target_rank"],
        "markers",
        **named,
        hovertemplate="%{fullData.name}: mean rank %{x:.1f} → %{y:.1f}<extra></extra>",
        marker={**drawn, "size": 15, "line": {"width": 1.5, "color": "#ffffff"}},
    )
    return [single, over_datasets]
