"""The charts of tests, intervals, costs and predictions; see `charts`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.page.chart_parts import HOVER, LEGEND_BELOW, axis_labels, categories, plain
from medplus.reporting.page.numbers import (
    interval,
    json_number,
    percent,
    seconds,
    significant,
)
from medplus.reporting.page.parts import Chart
from medplus.reporting.palette import PROTOCOL_LABELS, look_of
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer

_PROTOCOL_SYMBOLS = {"finetune": "circle", "probe": "diamond", "knn": "square"}
_MOST_LEVELS = 4.0


def pairwise(tests: pd.DataFrame) -> Chart:
    """Every pair's p value; tinted by how small it is, and by which of the two is favoured."""
    names = order_backbones([*tests["backbone_a"], *tests["backbone_b"]])
    place = {name: i for i, name in enumerate(names)}
    labels = list(axis_labels(names).values())
    empty: list[list[Any]] = [[None] * len(names) for _ in names]
    strength = [row.copy() for row in empty]
    texts = [["" for _ in names] for _ in names]
    hovers = [["" for _ in names] for _ in names]
    for row in tests.itertuples(index=False):
        if math.isnan(row.p_value):
            continue
        level = min(-math.log10(max(row.p_value, 1e-12)), _MOST_LEVELS)
        ends = ((row.backbone_a, row.backbone_b), (row.backbone_b, row.backbone_a))
        for one, other in ends:
            i, j = place[one], place[other]
            sign = 0 if not row.favoured else 1 if row.favoured == one else -1
            strength[i][j] = round(sign * level, 4)
            bold = ("<b>", " ●</b>") if row.significant else ("", "")
            texts[i][j] = significant(row.p_value, 2).join(bold)
            verdict = "significant" if row.significant else "not significant"
            better = look_of(row.favoured, names).label if row.favoured else "neither"
            hovers[i][j] = (
                f"{labels[i]} against {labels[j]}<br>p = {significant(row.p_value)}, {verdict} "
                f"(threshold {significant(row.threshold)})<br>higher mean: {plain(better)}"
            )
    layout = {
        "xaxis": {"side": "top", "tickangle": -40, "showgrid": False, **categories(labels)},
        "yaxis": {"autorange": "reversed", "showgrid": False, **categories(labels)},
    }
    trace = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": strength,
        "zmin": -_MOST_LEVELS,
        "zmax": _MOST_LEVELS,
        "text": texts,
        "texttemplate": "%{text}",
        "hovertext": hovers,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "colorscale": "diverging",
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
    }
    return Chart(
        "chart-pairwise",
        "Matrix: the p value of every pair of backbones. The table below holds the same numbers.",
        {"": {"data": [trace], "layout": layout}},
        height=160 + 42 * len(names),
        narrow_height=160 + 42 * len(names),
        min_width=180 + 68 * len(names),
    )


def mean_ranks(result: Friedman) -> Chart:
    """Mean ranks, half the critical difference to each side: overlaps are not told apart."""
    ranks = result.mean_ranks.sort_values()
    names = list(ranks.index)
    half = result.critical_difference / 2
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [json_number(value) for value in ranks],
        "y": list(axis_labels(names).values()),
        "error_x": {"type": "constant", "value": json_number(half), "thickness": 3, "width": 0},
        "marker": {
            "size": 13,
            "color": [look_of(name, names).colour for name in names],
            "symbol": [look_of(name, names).symbol for name in names],
        },
        "hovertemplate": "%{y}: mean rank %{x:.2f}<extra></extra>",
    }
    layout = {
        "xaxis": {
            "title": {"text": "mean rank (1 is best)"},
            "tickvals": list(range(1, len(names) + 1)),
        },
        "yaxis": {"type": "category", "autorange": "reversed"},
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
    backbones = order_backbones(intervals["backbone"])
    variants = {}
    for protocol in order_protocols(intervals["protocol"]):
        of_it = intervals[intervals["protocol"] == protocol]
        for size in sorted(of_it["size"].unique(), reverse=True):
            rows = of_it[of_it["size"] == size].sort_values("mean", ascending=False)
            variants[f"{PROTOCOL_LABELS[protocol]}, {size} px"] = {
                "data": [_interval_trace(rows, backbones)],
                "layout": {
                    "xaxis": {"title": {"text": "mean ACC (%), 95 % interval over datasets"}},
                    "yaxis": {"type": "category", "autorange": "reversed"},
                    "showlegend": False,
                },
            }
    return Chart(
        "chart-intervals",
        "Points with bars: mean ACC of every backbone and its 95 % interval over datasets.",
        variants,
        choose="Setting",
        height=110 + 36 * len(backbones),
        narrow_height=110 + 34 * len(backbones),
    )


def pareto(costs: pd.DataFrame) -> Chart:
    """ACC over measured device seconds; the line joins what nothing else beats in both."""
    backbones = order_backbones(costs["backbone"])
    sizes = sorted(costs["size"].unique())
    traces = []
    for name in backbones:
        rows = costs[costs["backbone"] == name]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(look_of(name, backbones).label),
                "x": [json_number(value) for value in rows["device_seconds"]],
                "y": [json_number(value) for value in rows["acc"]],
                "text": [
                    f"{plain(row.backbone)}<br>{PROTOCOL_LABELS[row.protocol]}, {row.size} px<br>"
                    f"ACC {percent(row.acc)} % for {seconds(row.device_seconds)}"
                    + ("<br>on the front" if row.front else "")
                    for row in rows.itertuples(index=False)
                ],
                "hovertemplate": HOVER,
                "marker": {
                    "color": look_of(name, backbones).colour,
                    "symbol": [_PROTOCOL_SYMBOLS[protocol] for protocol in rows["protocol"]],
                    "size": [9 + 3 * sizes.index(size) for size in rows["size"]],
                    "opacity": [1.0 if front else 0.55 for front in rows["front"]],
                },
            }
        )
    front = costs[costs["front"]].sort_values("device_seconds")
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [json_number(value) for value in front["device_seconds"]],
        "y": [json_number(value) for value in front["acc"]],
        "line": {"shape": "hv", "width": 1.5, "dash": "dot", "color": "#808080"},
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": {"type": "log", "title": {"text": "device seconds per run (log)"}},
        "yaxis": {"title": {"text": "mean ACC (%)"}},
        "legend": LEGEND_BELOW,
    }
    return Chart(
        "chart-costs",
        "Points: ACC over device seconds. The table below says which are on the Pareto front.",
        {"": {"data": [line, *traces], "layout": layout}},
        height=540,
        narrow_height=620,
    )


def transfers(results: Sequence[Transfer]) -> Chart:
    """Ranks by a cheap protocol against ranks by an expensive one; one variant per pair."""
    return Chart(
        "chart-transfers",
        "Points: rank by the cheap protocol against rank by the expensive one.",
        {transfer_label(result): _transfer(result) for result in results},
        choose="Pair",
        height=560,
        narrow_height=620,
    )


def transfer_label(result: Transfer) -> str:
    """Return in words which protocol is to predict which."""
    (cheap, cheap_size), (target, target_size) = result.cheap, result.target
    return (
        f"{PROTOCOL_LABELS[cheap]} at {cheap_size} px → "
        f"{PROTOCOL_LABELS[target]} at {target_size} px"
    )


def _interval_trace(rows: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Any]:
    looks = [look_of(name, backbones) for name in rows["backbone"]]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [json_number(value) for value in rows["mean"]],
        "y": [axis_labels(backbones)[name] for name in rows["backbone"]],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [json_number(value) for value in rows["high"] - rows["mean"]],
            "arrayminus": [json_number(value) for value in rows["mean"] - rows["low"]],
            "thickness": 3,
            "width": 0,
        },
        "text": [
            f"{plain(look.label)}: {percent(row.mean)} ({interval(row.low, row.high)})"
            for look, row in zip(looks, rows.itertuples(index=False), strict=True)
        ],
        "hovertemplate": HOVER,
        "marker": {
            "size": 13,
            "color": [look.colour for look in looks],
            "symbol": [look.symbol for look in looks],
        },
    }


def _transfer(result: Transfer) -> dict[str, Any]:
    """Return single ranks, moved apart where they coincide, and each backbone's mean of them."""
    points = result.points
    backbones = order_backbones(points["backbone"])
    traces: list[dict[str, Any]] = []
    for name in backbones:
        look = look_of(name, backbones)
        rows = points[points["backbone"] == name].sort_values("dataset")
        group = {"type": "scatter", "mode": "markers", "legendgroup": plain(name)}
        angles = 2 * np.pi * (backbones.index(name) / len(backbones) + np.arange(len(rows)) * 0.382)
        traces.append(
            group
            | {
                "name": plain(look.label),
                "showlegend": False,
                "x": [json_number(v) for v in rows["cheap_rank"] + 0.24 * np.cos(angles)],
                "y": [json_number(v) for v in rows["target_rank"] + 0.24 * np.sin(angles)],
                "text": [
                    f"{plain(row.dataset)}, {plain(row.backbone)}<br>"
                    f"rank {row.cheap_rank:g} → {row.target_rank:g}"
                    for row in rows.itertuples(index=False)
                ],
                "hovertemplate": HOVER,
                "marker": {"color": look.colour, "symbol": look.symbol, "size": 7, "opacity": 0.55},
            }
        )
        means = rows[["cheap_rank", "target_rank"]].mean()
        traces.append(
            group
            | {
                "name": plain(look.label),
                "x": [json_number(means["cheap_rank"])],
                "y": [json_number(means["target_rank"])],
                "hovertemplate": "%{fullData.name}: mean rank %{x:.1f} → %{y:.1f}<extra></extra>",
                "marker": {
                    "color": look.colour,
                    "symbol": look.symbol,
                    "size": 15,
                    "line": {"width": 1.5, "color": "#ffffff"},
                },
            }
        )
    (cheap, cheap_size), (target, target_size) = result.cheap, result.target
    last = len(backbones) + 0.7
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0.5, last],
        "y": [0.5, last],
        "hoverinfo": "skip",
        "showlegend": False,
        "line": {"color": "#808080", "width": 1, "dash": "dot"},
    }
    rank_axis = {"range": [0.3, last], "dtick": 1, "zeroline": False}
    x_title = f"rank by {PROTOCOL_LABELS[cheap]}, {cheap_size} px"
    y_title = f"rank by {PROTOCOL_LABELS[target]}, {target_size} px"
    return {
        "data": [diagonal, *traces],
        "layout": {
            "xaxis": rank_axis | {"title": {"text": x_title}},
            "yaxis": rank_axis | {"title": {"text": y_title}},
            "legend": LEGEND_BELOW,
        },
    }
