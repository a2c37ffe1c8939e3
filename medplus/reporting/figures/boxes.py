"""Figure 4: how accuracy spreads over datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.figures.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import FAINT, GREY, INK, SMALL, Sign, short_names, signs
from medplus.reporting.format import percent
from medplus.reporting.palette import PROTOCOL_LABELS

_TOP, _BELOW, _GAP, _TABLE = 7.0, 10.0, 4.0, 30.0
_BOX, _THIN, _BETWEEN = 2.4, 1.5, 1.6
_MANY = 15
_LIGHTEST = 0.75


def draw_boxes(analysis: Analysis) -> Figure | None:
    """Draw boxes over datasets by protocol, backbone and size, beside the percentiles."""
    cells = analysis.cells.dropna(subset="acc_mean")
    if cells.empty:
        return None
    backbones, protocols = order_backbones(cells["backbone"]), order_protocols(cells["protocol"])
    sizes = sorted(set(cells["size"]))
    names = short_names(backbones)
    box = _BOX if len(backbones) <= _MANY else _THIN
    row = max(box * len(sizes) + _BETWEEN, LINE + 1.0)
    left = MARGIN + text_width(names.values()) + 2.0
    table = 0.0 if analysis.percentiles.empty else _TABLE
    width = (WIDE - left - MARGIN - table - len(protocols) * _GAP) / len(protocols)
    height = row * len(backbones)
    sheet = Sheet(WIDE, _TOP + height + _BELOW + LINE + MARGIN)
    panels = [
        sheet.axes(left + place * (width + _GAP), _TOP, width, height)
        for place in range(len(protocols))
    ]
    low, drawn = cells["acc_mean"].min(), signs(analysis.cells["backbone"])
    for axes, protocol in zip(panels, protocols, strict=True):
        _draw_panel(axes, cells[cells["protocol"] == protocol], backbones, sizes, drawn, row, box)
        axes.set_xlim(max(0.0, low - 4.0), 102.0)
        axes.set_title(PROTOCOL_LABELS[protocol])
        axes.set_xlabel("ACC, %")
        labels = names.values() if axes is panels[0] else [""] * len(names)
        axes.set_yticks([row * (place + 0.5) for place in range(len(names))], labels)
    if table:
        beside = WIDE - MARGIN - table
        _draw_table(sheet.axes(beside, _TOP, table, height), analysis, backbones, row)
    shades = [
        (f"{size} px", Patch(facecolor=_shade(GREY, place, len(sizes)), edgecolor=GREY, lw=0.5))
        for place, size in enumerate(sizes)
    ]
    sheet.legend(left, _TOP + height + _BELOW, WIDE - left, shades)
    return sheet.figure


def _draw_panel(
    axes: Axes,
    cells: pd.DataFrame,
    backbones: Sequence[str],
    sizes: Sequence[int],
    drawn: Mapping[str, Sign],
    row: float,
    box: float,
) -> None:
    first = (row - box * (len(sizes) - 1)) / 2
    groups = {key: group["acc_mean"] for key, group in cells.groupby(["backbone", "size"])}
    for line, backbone in enumerate(backbones):
        colour = drawn[backbone].colour
        for place, size in enumerate(sizes):
            if (backbone, size) not in groups:
                continue
            parts = axes.boxplot(
                [groups[backbone, size].to_numpy()],
                positions=[row * line + first + box * place],
                widths=box * 0.72,
                orientation="horizontal",
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": _shade(colour, place, len(sizes)), "lw": 0.5},
                medianprops={"color": INK, "lw": 0.9},
                whiskerprops={"lw": 0.5, "color": GREY},
                capprops={"lw": 0.5, "color": GREY},
                flierprops={"marker": ".", "markersize": 2.2, "markeredgecolor": GREY},
            )
            parts["boxes"][0].set_edgecolor(INK)
            parts["boxes"][0].set_label(f"{backbone}, {size}")
    for line in range(1, len(backbones)):
        axes.axhline(row * line, color=FAINT, lw=0.6, zorder=0)
    axes.set_ylim(row * len(backbones), 0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def _draw_table(axes: Axes, analysis: Analysis, backbones: Sequence[str], row: float) -> None:
    """Write the percentiles in line with the boxes; the best of each column is bold."""
    axes.set_axis_off()
    axes.set_xlim(0, 3)
    axes.set_ylim(row * len(backbones), 0)
    table = analysis.percentiles.set_index("backbone")
    best = table.max()
    for place, name in enumerate(("p25", "p50", "p75")):
        axes.text(place + 0.9, -1.0, f"{name[1:]}th", ha="right", va="bottom", fontsize=7)
        for line, backbone in enumerate(backbones):
            value = float(table[name].get(backbone, float("nan")))
            is_best = len(backbones) > 1 and percent(value) == percent(best[name])
            axes.text(
                place + 0.9,
                row * (line + 0.5),
                percent(value) or "–",
                ha="right",
                va="center_baseline",
                fontweight="bold" if is_best else "normal",
            )
    n_datasets = len(analysis.means)
    datasets = "datasets" if n_datasets > 1 else "dataset"
    below = f"percentiles over {n_datasets}\n{datasets}, ACC averaged\nover protocols and sizes"
    axes.text(
        3, row * len(backbones) + 1.0, below, ha="right", va="top", fontsize=SMALL, color=GREY
    )


def _shade(colour: str, place: int, of: int) -> tuple[float, float, float]:
    """Return a colour mixed with white: the smaller the image size, the lighter."""
    white = 0.0 if of == 1 else _LIGHTEST * (1 - place / (of - 1))
    red, green, blue = (part + (1 - part) * white for part in to_rgb(colour))
    return red, green, blue
