"""The interactive charts of results, as plain data for plotly.js.

Colours of text, grids and scales are the page's, which knows whether it is light or dark: a trace's
``colorscale`` is named ``sequential`` or ``diverging`` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.cells import ALL, AVERAGE, order_backbones
from medplus.reporting.page import chart_parts as parts
from medplus.reporting.page.parts import Chart
from medplus.reporting.palette import PROTOCOL_LABELS, look_of
from medplus.reporting.series import Box, Extent, boxes_of, ranks_by_setting


def overview(benchmark: pd.DataFrame) -> Chart:
    """ACC over the image size, one panel per protocol, one line per backbone; by dataset."""
    extent = Extent.of(benchmark)
    layout, narrow = _panels([PROTOCOL_LABELS[name] for name in extent.protocols], "ACC (%)")
    for panel in range(1, len(extent.protocols) + 1):
        layout[_axis("x", panel)] |= parts.categories(map(str, extent.sizes))
    variants = {}
    for dataset in sorted(set(benchmark["dataset"]), key=lambda name: (name != AVERAGE, name)):
        rows = benchmark[benchmark["dataset"] == dataset].set_index(
            ["protocol", "backbone", "size"]
        )
        traces = [
            _line(rows.reindex([(protocol, name, size) for size in extent.sizes]), panel, extent)
            for panel, protocol in enumerate(extent.protocols, 1)
            for name in extent.backbones
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
        narrow_height=300 * len(extent.protocols) + 260,
    )


def ranking(counts: pd.DataFrame) -> Chart:
    """How often each backbone takes each of the first ranks; pooled, and by protocol and size."""
    variants = {}
    backbones = order_backbones(counts["backbone"])
    for (protocol, size), (n, table) in ranks_by_setting(counts).items():
        of = "all protocols" if protocol == ALL else PROTOCOL_LABELS[protocol]
        at = "all sizes" if size == ALL else f"{size} px"
        cells = parts.heatmap(
            [f"rank {rank}" for rank in table.columns],
            list(parts.axis_labels(backbones).values()),
            [fmt.json_numbers(row) for row in table.to_numpy(dtype=float)],
            zmin=0,
            zmax=max(int(table.max(axis=None)), 1),
            texttemplate="%{z:.0f}",
            hovertemplate=f"%{{y}}: %{{x}} in %{{z}} of {n} settings<extra></extra>",
            colorscale="sequential",
        )
        layout = {
            "xaxis": {"type": "category", "side": "top", "showgrid": False},
            "yaxis": {**parts.NAMES_DOWN, "showgrid": False},
        }
        variants[f"{of}, {at} ({n} settings)"] = {"data": [cells], "layout": layout}
    return Chart(
        "chart-ranking",
        "Heat map: in how many settings each backbone takes each rank. "
        "The table below holds the same counts.",
        variants,
        choose="Settings",
        height=80 + 38 * len(backbones),
        narrow_height=80 + 36 * len(backbones),
    )


def boxes(cells: pd.DataFrame) -> Chart:
    """Boxes of ACC over the datasets, by size and backbone; one variant per protocol."""
    extent, found = Extent.of(cells), boxes_of(cells)
    layout = {
        "boxmode": "group",
        "boxgap": 0.15,
        "xaxis": parts.titled("image size (px)", showgrid=False)
        | parts.categories(map(str, extent.sizes)),
        "yaxis": parts.titled("ACC (%) over datasets"),
        "legend": parts.LEGEND_BELOW,
    }
    variants = {}
    for protocol in extent.protocols:
        traces = []
        for name in extent.backbones:
            keys = [(protocol, name, size) for size in extent.sizes]
            by_size = {key[2]: found[key] for key in keys if key in found}
            traces += [_boxes(by_size, name, extent)] if by_size else []
        variants[PROTOCOL_LABELS[protocol]] = {"data": traces, "layout": layout}
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
    tolerances = against["tolerance"].unique()
    dotted = {"color": parts.GREY, "width": 1, "dash": "dot"}
    layout = {
        "xaxis": parts.titled("the paper's ACC (%)"),
        "yaxis": parts.titled("yours less the paper's", zeroline=True),
        "legend": parts.LEGEND_BELOW,
        "shapes": [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": dotted}
            for tolerance in tolerances
            for y in fmt.json_numbers((-tolerance, tolerance))
        ],
    }
    traces = [_differences(against[against["backbone"] == name], backbones) for name in backbones]
    return Chart(
        "chart-against",
        "Points: your ACC less the paper's. The table below holds the same numbers.",
        {"": {"data": traces, "layout": layout}},
        narrow_height=560,
    )


def _differences(rows: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Any]:
    look = look_of(rows["backbone"].iloc[0], backbones)
    symbols = {True: look.symbol, False: f"{look.symbol}-open"}
    return parts.scatter(
        rows["paper_acc"],
        rows["difference"],
        "markers",
        name=parts.plain(look.label),
        text=[
            f"{parts.plain(row.dataset)}, {PROTOCOL_LABELS[row.protocol]}, "
            f"{parts.plain(row.backbone)}, {row.size} px<br>yours {fmt.read_percent(row.acc)}, "
            f"paper {fmt.plus_minus(row.paper_acc, row.paper_std)}"
            for row in rows.itertuples(index=False)
        ],
        hovertemplate=parts.HOVER,
        marker={
            "color": look.colour,
            "symbol": [symbols[bool(passed)] for passed in rows["passed"]],
            "size": 11,
            "line": {"width": 2, "color": look.colour},
        },
    )


def _axis(letter: str, panel: int) -> str:
    return f"{letter}axis{panel if panel > 1 else ''}"


def _panels(titles: Sequence[str], y_title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return layouts of panels side by side, and below each other."""
    n = len(titles)
    layout: dict[str, Any] = {"legend": parts.LEGEND_BELOW | {"y": -0.2}}
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


def _line(rows: pd.DataFrame, panel: int, extent: Extent) -> dict[str, Any]:
    """Return one backbone's line in one panel; a missing size is a gap."""
    backbone = rows.index[0][1]
    look = look_of(backbone, extent.backbones)
    suffix = panel if panel > 1 else ""
    return parts.scatter(
        (),
        rows["acc_mean"],
        "lines+markers",
        name=parts.plain(look.label),
        legendgroup=parts.plain(backbone),
        showlegend=False,
        text=list(map(fmt.plus_minus, rows["acc_mean"], rows["acc_std"])),
        hovertemplate="%{fullData.name}, %{x} px: %{text}<extra></extra>",
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        line={"color": look.colour, "width": 2},
        marker={"symbol": look.symbol, "size": 9},
    ) | {"x": [f"{size}" for size in extent.sizes]}


def _show_in_legend_once(traces: Sequence[dict[str, Any]]) -> None:
    """Let the first line of each backbone that has a value stand in the legend."""
    shown = set()
    for trace in traces:
        if trace["legendgroup"] not in shown and any(y is not None for y in trace["y"]):
            shown.add(trace["legendgroup"])
            trace["showlegend"] = True


def _boxes(by_size: dict[int, Box], backbone: str, extent: Extent) -> dict[str, Any]:
    look = look_of(backbone, extent.backbones)
    found = list(by_size.values())

    def all_of(part: str) -> list[float]:
        return [round(float(getattr(box, part)), 4) for box in found]

    return {
        "type": "box",
        "name": parts.plain(look.label),
        "x": [f"{size}" for size in by_size],
        "y": [fmt.json_numbers(box.values) for box in found],
        "text": [
            [f"{parts.plain(name)}: {fmt.read_percent(acc)}" for name, acc in box.values.items()]
            for box in found
        ],
        "lowerfence": all_of("low"),
        "q1": all_of("q1"),
        "median": all_of("median"),
        "q3": all_of("q3"),
        "upperfence": all_of("high"),
        "boxpoints": "outliers",
        "marker": {"color": look.colour, "size": 5, "symbol": look.symbol},
        "line": {"width": 1.5},
        "hoverlabel": {"namelength": -1},
    }
