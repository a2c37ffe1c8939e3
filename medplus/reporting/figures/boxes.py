"""Figure 4: how accuracy spreads over datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import FAINT, GREY, INK, SMALL, mixed, short_names, signs
from medplus.reporting.format import counted, percent
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.series import Box, Extent, boxes_of

_TOP, _BELOW, _GAP, _TABLE = 7.0, 10.0, 4.0, 30.0
_BOX, _THIN, _BETWEEN = 2.4, 1.5, 1.6
_MANY = 15
_LIGHTEST = 0.75


def draw_boxes(analysis: Analysis) -> Figure | None:
    """Draw boxes over datasets by protocol, backbone and size, beside the percentiles."""
    cells = analysis.cells.dropna(subset="acc_mean")
    if cells.empty:
        return None
    extent, drawn = Extent.of(cells), signs(analysis.cells["backbone"])
    names = list(short_names(extent.backbones).values())
    box = _BOX if len(names) <= _MANY else _THIN
    row = max(box * len(extent.sizes) + _BETWEEN, LINE + 1.0)
    left = MARGIN + text_width(names) + 2.0
    table = 0.0 if analysis.percentiles.empty else _TABLE
    n_panels, height = len(extent.protocols), row * len(names)
    width = (WIDE - left - MARGIN - table - n_panels * _GAP) / n_panels
    sheet = Sheet(WIDE, _TOP + height + _BELOW + LINE + MARGIN)
    panels = sheet.panels(n_panels, left, _TOP, width, height, _GAP)
    low, found = cells["acc_mean"].min(), boxes_of(cells)
    for axes, protocol in zip(panels, extent.protocols, strict=True):
        for line, name in enumerate(extent.backbones):
            first = row * (line + 0.5) - box * (len(extent.sizes) - 1) / 2
            for place, size in enumerate(extent.sizes):
                if numbers := found.get((protocol, name, size)):
                    shade = _shade(drawn[name].colour, size, extent.sizes)
                    label = f"{name}, {size}"
                    _draw_box(axes, numbers, first + box * place, box, shade, label)
        axes.set_xlim(max(0.0, low - 4.0), 102.0)
        axes.set_title(PROTOCOL_LABELS[protocol])
        labels = names if axes is panels[0] else [""] * len(names)
        axes.set_yticks([row * (place + 0.5) for place in range(len(names))], labels)
        _separate_rows(axes, row, len(names))
    if table:
        beside = WIDE - MARGIN - table
        _draw_table(sheet.axes(beside, _TOP, table, height), analysis, extent.backbones, row)
    shades = [
        (f"{size} px", Patch(facecolor=_shade(GREY, size, extent.sizes), edgecolor=GREY, lw=0.5))
        for size in extent.sizes
    ]
    sheet.legend(left, _TOP + height + _BELOW, WIDE - left, shades)
    return sheet.figure


def _draw_box(
    axes: Axes,
    numbers: Box,
    middle: float,
    box: float,
    shade: tuple[float, float, float],
    label: str,
) -> None:
    axes.bxp(
        [_in_matplotlibs_words(numbers)],
        positions=[middle],
        widths=box * 0.72,
        orientation="horizontal",
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": shade, "edgecolor": INK, "lw": 0.5, "label": label},
        medianprops={"color": INK, "lw": 0.9},
        whiskerprops={"lw": 0.5, "color": GREY},
        capprops={"lw": 0.5, "color": GREY},
        flierprops={"marker": ".", "markersize": 2.2, "markeredgecolor": GREY},
    )


def _in_matplotlibs_words(numbers: Box) -> dict[str, Any]:
    return {
        "q1": numbers.q1,
        "med": numbers.median,
        "q3": numbers.q3,
        "whislo": min(numbers.low, numbers.q1),
        "whishi": max(numbers.high, numbers.q3),
        "fliers": numbers.outliers,
    }


def _separate_rows(axes: Axes, row: float, n_rows: int) -> None:
    for line in range(1, n_rows):
        axes.axhline(row * line, color=FAINT, lw=0.6, zorder=0)
    axes.set_ylim(row * n_rows, 0)
    axes.set_xlabel("ACC, %")
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
    over = counted(len(analysis.means), "dataset").replace(" ", "\n")
    below = f"percentiles over {over}, ACC averaged\nover protocols and sizes"
    axes.text(
        3, row * len(backbones) + 1.0, below, ha="right", va="top", fontsize=SMALL, color=GREY
    )


def _shade(colour: str, size: int, sizes: Sequence[int]) -> tuple[float, float, float]:
    """Return a colour mixed with white: the smaller the image size, the lighter."""
    steps = len(sizes) - 1
    return mixed(colour, _LIGHTEST * (1 - sizes.index(size) / steps) if steps else 0.0)
