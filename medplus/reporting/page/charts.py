"""The interactive charts, as plain data for plotly.js.

Colours of text, grids and scales are the page's, which knows whether it is light or dark: a trace's
``colorscale`` is named ``sequential`` or ``diverging`` here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from medplus.reporting.cells import ALL, AVERAGE, order_backbones, order_protocols
from medplus.reporting.page.numbers import (
    interval,
    json_number,
    percent,
    plus_minus,
    seconds,
    significant,
)
from medplus.reporting.page.parts import Chart
from medplus.reporting.palette import PROTOCOL_LABELS, look_of
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer

_PROTOCOL_SYMBOLS = {"finetune": "circle", "probe": "diamond", "knn": "square"}
_HOVER = "%{text}<extra></extra>"
_MOST_LEVELS = 4.0


def plain(text: str) -> str:
    """Return text that plotly, which reads some HTML in it, shows as it is."""
    return escape(text, quote=False)


def overview(benchmark: pd.DataFrame) -> Chart:
    """ACC over the image size, one panel per protocol, one line per backbone; by dataset."""
    names = benchmark["dataset"].drop_duplicates()
    datasets = [AVERAGE] * (AVERAGE in set(names)) + sorted(set(names) - {AVERAGE})
    backbones = order_backbones(benchmark["backbone"])
    protocols = order_protocols(benchmark["protocol"])
    layout, narrow = _panels([PROTOCOL_LABELS[name] for name in protocols], "ACC (%)")
    sizes = sorted(benchmark["size"].unique())
    for panel in range(1, len(protocols) + 1):
        layout[_axis("x", panel)] |= _categories([f"{size}" for size in sizes])
    variants = {}
    for dataset in datasets:
        rows = benchmark[benchmark["dataset"] == dataset].set_index(
            ["protocol", "backbone", "size"]
        )
        traces = [
            _line(rows, protocol, panel, backbone, backbones, sizes)
            for panel, protocol in enumerate(protocols, 1)
            for backbone in backbones
        ]
        _show_in_legend_once(traces)
        label = "average over datasets" if dataset == AVERAGE else dataset
        variants[label] = {"data": traces, "layout": layout, "narrow": narrow}
    return Chart(
        "chart-overview",
        "Lines: ACC over the image size for every backbone, one panel per protocol. "
        "The tables below hold the same numbers.",
        variants,
        choose="Dataset",
        height=540,
        narrow_height=300 * len(protocols) + 260,
    )


def ranking(counts: pd.DataFrame, settings: pd.DataFrame) -> Chart:
    """How often each backbone takes each of the first ranks; pooled, and by protocol and size."""
    backbones = order_backbones(counts["backbone"])
    ranks = sorted(counts["rank"].unique())
    n_settings = {
        (row.protocol, str(row.size)): row.n_settings for row in settings.itertuples(index=False)
    }
    variants = {}
    for (protocol, size), rows in counts.groupby(["protocol", "size"], sort=False):
        table = rows.pivot_table(index="backbone", columns="rank", values="count").reindex(
            index=backbones, columns=ranks
        )
        n = n_settings.get((protocol, str(size)), 0)
        variants[setting_label(protocol, size, n)] = {
            "data": [
                {
                    "type": "heatmap",
                    "x": [f"rank {rank}" for rank in ranks],
                    "y": list(_axis_labels(backbones).values()),
                    "z": _matrix(table),
                    "zmin": 0,
                    "zmax": max(int(rows["count"].max()), 1),
                    "texttemplate": "%{z:.0f}",
                    "hovertemplate": f"%{{y}}: %{{x}} in %{{z}} of {n} settings<extra></extra>",
                    "colorscale": "sequential",
                    "xgap": 2,
                    "ygap": 2,
                    "showscale": False,
                }
            ],
            "layout": {
                "xaxis": {"type": "category", "side": "top", "showgrid": False},
                "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
            },
        }
    return Chart(
        "chart-ranking",
        "Heat map: in how many settings each backbone takes each rank. "
        "The table below holds the same counts.",
        variants,
        choose="Settings",
        height=80 + 38 * len(backbones),
        narrow_height=80 + 36 * len(backbones),
    )


def setting_label(protocol: str, size: object, n_settings: int) -> str:
    """Return in words what is pooled."""
    of = "all protocols" if protocol == ALL else PROTOCOL_LABELS[protocol]
    at = "all sizes" if size == ALL else f"{size} px"
    return f"{of}, {at} ({n_settings} settings)"


def boxes(cells: pd.DataFrame) -> Chart:
    """Boxes of ACC over the datasets, by size and backbone; one variant per protocol.

    Quartiles are numpy's (linear), whiskers end at the last value within 1.5 times the box's
    length, as Tukey draws them.
    """
    backbones = order_backbones(cells["backbone"])
    sizes = sorted(cells["size"].unique())
    variants = {}
    for protocol in order_protocols(cells["protocol"]):
        rows = cells[cells["protocol"] == protocol]
        traces = [
            _boxes(rows[rows["backbone"] == name], name, backbones, sizes) for name in backbones
        ]
        variants[PROTOCOL_LABELS[protocol]] = {
            "data": [trace for trace in traces if trace["x"]],
            "layout": {
                "boxmode": "group",
                "boxgap": 0.15,
                "xaxis": {"title": {"text": "image size (px)"}, "showgrid": False}
                | _categories([f"{size}" for size in sizes]),
                "yaxis": {"title": {"text": "ACC (%) over datasets"}},
                "legend": _LEGEND_BELOW,
            },
        }
    return Chart(
        "chart-boxes",
        "Box plots: the spread of ACC over datasets by image size and backbone.",
        variants,
        choose="Protocol",
        height=520,
        narrow_height=560,
        min_width=760,
    )


def pairwise(tests: pd.DataFrame) -> Chart:
    """Every pair's p value; tinted by how small it is, and by which of the two is favoured."""
    names = order_backbones([*tests["backbone_a"], *tests["backbone_b"]])
    place = {name: i for i, name in enumerate(names)}
    labels = list(_axis_labels(names).values())
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
        "xaxis": {"side": "top", "tickangle": -40, "showgrid": False, **_categories(labels)},
        "yaxis": {"autorange": "reversed", "showgrid": False, **_categories(labels)},
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
        "y": list(_axis_labels(names).values()),
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
                "hovertemplate": _HOVER,
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
        "legend": _LEGEND_BELOW,
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


def against_paper(against: pd.DataFrame) -> Chart:
    """Your ACC less the paper's, over the paper's; hollow where it fails the tolerance (dotted)."""
    backbones = order_backbones(against["backbone"])
    traces = []
    for name in backbones:
        rows = against[against["backbone"] == name]
        look = look_of(name, backbones)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(look.label),
                "x": [json_number(value) for value in rows["paper_acc"]],
                "y": [json_number(value) for value in rows["difference"]],
                "text": [
                    f"{plain(row.dataset)}, {PROTOCOL_LABELS[row.protocol]}, "
                    f"{plain(row.backbone)}, {row.size} px<br>yours {percent(row.acc)}, "
                    f"paper {plus_minus(row.paper_acc, row.paper_std)}"
                    for row in rows.itertuples(index=False)
                ],
                "hovertemplate": _HOVER,
                "marker": {
                    "color": look.colour,
                    "symbol": [
                        look.symbol if passed else f"{look.symbol}-open"
                        for passed in rows["passed"]
                    ],
                    "size": 11,
                    "line": {"width": 2, "color": look.colour},
                },
            }
        )
    layout = {
        "xaxis": {"title": {"text": "the paper's ACC (%)"}},
        "yaxis": {"title": {"text": "yours less the paper's"}, "zeroline": True},
        "legend": _LEGEND_BELOW,
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": height,
                "y1": height,
                "line": {"color": "#808080", "width": 1, "dash": "dot"},
            }
            for tolerance in against["tolerance"].unique()
            for height in (json_number(-tolerance), json_number(tolerance))
        ],
    }
    return Chart(
        "chart-against",
        "Points: your ACC less the paper's. The table below holds the same numbers.",
        {"": {"data": traces, "layout": layout}},
        narrow_height=560,
    )


_LONGEST = 26
"""Characters of a name beside an axis; a longer one would leave no room for the chart."""


def _axis_labels(names: Sequence[str]) -> dict[str, str]:
    """Return what to write beside an axis, shortened in the middle where names stay distinct."""
    full = {name: look_of(name, names).label for name in names}
    short = {
        name: label if len(label) <= _LONGEST else f"{label[:14]}…{label[-11:]}"
        for name, label in full.items()
    }
    counts = Counter(short.values())
    return {
        name: plain(label if counts[label] == 1 else full[name]) for name, label in short.items()
    }


_LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"}


def _axis(letter: str, panel: int) -> str:
    return f"{letter}axis{panel if panel > 1 else ''}"


def _categories(labels: Sequence[str]) -> dict[str, Any]:
    return {"type": "category", "categoryorder": "array", "categoryarray": list(labels)}


def _matrix(table: pd.DataFrame) -> list[list[float | None]]:
    return [[json_number(value) for value in row] for row in table.to_numpy(dtype=float)]


def _panels(titles: Sequence[str], y_title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return layouts of panels side by side, and below each other."""
    n = len(titles)
    layout: dict[str, Any] = {"legend": _LEGEND_BELOW | {"y": -0.2}}
    narrow: dict[str, Any] = {"legend": {"y": -0.09}}
    notes, narrow_notes = [], []
    gap, narrow_gap = 0.06, 0.07
    for i, title in enumerate(titles):
        start = i * (1 + gap) / n
        domain = [round(start, 4), round(start + (1 + gap) / n - gap, 4)]
        top = 1 - i * (1 + narrow_gap) / n
        narrow_domain = [round(top - ((1 + narrow_gap) / n - narrow_gap), 4), round(top, 4)]
        number = i + 1
        x, y = _axis("x", number), _axis("y", number)
        suffix = number if number > 1 else ""
        layout[x] = {"domain": domain, "anchor": f"y{suffix}", "title": {"text": "px"}}
        layout[y] = {"domain": [0, 1], "anchor": f"x{suffix}"}
        if number == 1:
            layout[y]["title"] = {"text": y_title}
        narrow[x] = {"domain": [0, 1], "title": {"text": ""}}
        narrow[y] = {"domain": [max(narrow_domain[0], 0.0), narrow_domain[1]]}
        note = {"text": f"<b>{title}</b>", "showarrow": False, "xref": "paper", "yref": "paper"}
        notes.append(note | {"x": sum(domain) / 2, "y": 1.01, "yanchor": "bottom"})
        narrow_notes.append(note | {"x": 0.5, "y": narrow_domain[1], "yanchor": "bottom"})
    return layout | {"annotations": notes}, narrow | {"annotations": narrow_notes}


def _line(
    rows: pd.DataFrame,
    protocol: str,
    panel: int,
    backbone: str,
    backbones: Sequence[str],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Return one backbone's line in one panel; a missing size is a gap."""
    look = look_of(backbone, backbones)
    found = rows.reindex([(protocol, backbone, size) for size in sizes])
    values = found["acc_mean"].tolist()
    suffix = panel if panel > 1 else ""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(look.label),
        "legendgroup": plain(backbone),
        "showlegend": False,
        "x": [f"{size}" for size in sizes],
        "y": [json_number(value) for value in values],
        "text": [plus_minus(*pair) for pair in zip(values, found["acc_std"].tolist(), strict=True)],
        "hovertemplate": "%{fullData.name}, %{x} px: %{text}<extra></extra>",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "line": {"color": look.colour, "width": 2},
        "marker": {"symbol": look.symbol, "size": 9},
    }


def _show_in_legend_once(traces: Sequence[dict[str, Any]]) -> None:
    """Let the first line of each backbone that has a value stand in the legend."""
    shown = set()
    for trace in traces:
        if trace["legendgroup"] not in shown and any(y is not None for y in trace["y"]):
            shown.add(trace["legendgroup"])
            trace["showlegend"] = True


def _boxes(
    rows: pd.DataFrame, backbone: str, backbones: Sequence[str], sizes: Sequence[int]
) -> dict[str, Any]:
    look = look_of(backbone, backbones)
    groups = [
        (size, of_size.sort_values("acc_mean"))
        for size in sizes
        if len(of_size := rows[(rows["size"] == size) & rows["acc_mean"].notna()])
    ]
    numbers = [_box_numbers(group["acc_mean"].to_numpy(dtype=float)) for _, group in groups]
    keys = ("lowerfence", "q1", "median", "q3", "upperfence")
    return {
        "type": "box",
        "name": plain(look.label),
        "x": [f"{size}" for size, _ in groups],
        "y": [[json_number(value) for value in group["acc_mean"]] for _, group in groups],
        "text": [
            [f"{plain(row.dataset)}: {percent(row.acc_mean)}" for row in group.itertuples()]
            for _, group in groups
        ],
        "boxpoints": "outliers",
        "marker": {"color": look.colour, "size": 5, "symbol": look.symbol},
        "line": {"width": 1.5},
        "hoverlabel": {"namelength": -1},
    } | {key: [box[i] for box in numbers] for i, key in enumerate(keys)}


def _box_numbers(values: np.ndarray) -> tuple[float, ...]:
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    low = values[values >= q1 - reach].min()
    high = values[values <= q3 + reach].max()
    return tuple(round(float(value), 4) for value in (low, q1, median, q3, high))


def _interval_trace(rows: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Any]:
    looks = [look_of(name, backbones) for name in rows["backbone"]]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [json_number(value) for value in rows["mean"]],
        "y": [_axis_labels(backbones)[name] for name in rows["backbone"]],
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
        "hovertemplate": _HOVER,
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
                "hovertemplate": _HOVER,
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
            "legend": _LEGEND_BELOW,
        },
    }
