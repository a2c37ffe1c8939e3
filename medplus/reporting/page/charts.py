"""The interactive charts, as plain data for plotly.js.

Colours of text, grids and scales are the page's, which knows whether it is light or dark: a trace's
``colorscale`` is named ``sequential`` or ``diverging`` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medplus.reporting.cells import ALL, AVERAGE, order_backbones, order_protocols
from medplus.reporting.page.chart_parts import HOVER, LEGEND_BELOW, axis_labels, categories, plain
from medplus.reporting.page.numbers import (
    json_number,
    percent,
    plus_minus,
)
from medplus.reporting.page.parts import Chart
from medplus.reporting.palette import PROTOCOL_LABELS, look_of


def overview(benchmark: pd.DataFrame) -> Chart:
    """ACC over the image size, one panel per protocol, one line per backbone; by dataset."""
    names = benchmark["dataset"].drop_duplicates()
    datasets = [AVERAGE] * (AVERAGE in set(names)) + sorted(set(names) - {AVERAGE})
    backbones = order_backbones(benchmark["backbone"])
    protocols = order_protocols(benchmark["protocol"])
    layout, narrow = _panels([PROTOCOL_LABELS[name] for name in protocols], "ACC (%)")
    sizes = sorted(benchmark["size"].unique())
    for panel in range(1, len(protocols) + 1):
        layout[_axis("x", panel)] |= categories([f"{size}" for size in sizes])
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
                    "y": list(axis_labels(backbones).values()),
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
                | categories([f"{size}" for size in sizes]),
                "yaxis": {"title": {"text": "ACC (%) over datasets"}},
                "legend": LEGEND_BELOW,
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
                "hovertemplate": HOVER,
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
        "legend": LEGEND_BELOW,
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


def _axis(letter: str, panel: int) -> str:
    return f"{letter}axis{panel if panel > 1 else ''}"


def _matrix(table: pd.DataFrame) -> list[list[float | None]]:
    return [[json_number(value) for value in row] for row in table.to_numpy(dtype=float)]


def _panels(titles: Sequence[str], y_title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return layouts of panels side by side, and below each other."""
    n = len(titles)
    layout: dict[str, Any] = {"legend": LEGEND_BELOW | {"y": -0.2}}
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
