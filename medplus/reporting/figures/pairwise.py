"""Figure 5: which backbones differ, pair by pair."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from medplus.naming import counted
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones
from medplus.reporting.figures.heatmap import frame_rows, ink_on, write
from medplus.reporting.figures.sheet import LINE, MARGIN, WIDE, Sheet, legend_height, text_width
from medplus.reporting.figures.style import INK, MISSING, NORMAL, PAPER, short_names
from medplus.reporting.format import p_value

ROW_BETTER, COLUMN_BETTER = "#0072B2", "#E69F00"
_PALE = 0.28
_SIGNS = (
    ("row better, significant", ROW_BETTER, 1.0),
    ("row better, not significant", ROW_BETTER, _PALE),
    ("column better, significant", COLUMN_BETTER, 1.0),
    ("column better, not significant", COLUMN_BETTER, _PALE),
)
_MARGIN_ABOVE, _CELL_MAX, _CELL_MIN = 3.0, 12.5, 3.2
_LEGIBLE = 8.0
"""Millimetres that a cell needs for its number."""


def draw_pairwise(analysis: Analysis) -> Figure | None:
    """Draw the p-value of each pair, coloured by which of the two is favoured."""
    table = analysis.pairwise
    if table.empty or table["p_value"].isna().all():
        return None
    backbones = order_backbones([*table["backbone_a"], *table["backbone_b"]])
    names = short_names(backbones)
    down, across = backbones[1:], backbones[:-1]
    left = MARGIN + text_width(names.values()) + 2.0
    cell = (WIDE - left - MARGIN) / len(across)
    cell = min(_CELL_MAX, max(_CELL_MIN, cell))
    height = min(cell, 6.5)
    foot = text_width(names[name] for name in across) * 0.71 + 6.0
    below = _MARGIN_ABOVE + height * len(down) + foot
    legend = legend_height([label for label, *_ in _SIGNS], WIDE - 2 * MARGIN)
    sheet = Sheet(WIDE, below + legend + LINE + 2.0 + MARGIN)
    axes = sheet.axes(left, _MARGIN_ABOVE, cell * len(across), height * len(down))
    for row in table.itertuples():
        place = across.index(row.backbone_a), down.index(row.backbone_b)
        _draw_pair(axes, *place, row, legible=cell >= _LEGIBLE)
    axes.set_xlim(0, len(across))
    frame_rows(axes, [names[name] for name in down])
    axes.set_xticks([place + 0.6 for place in range(len(across))])
    axes.set_xticklabels(
        [names[name] for name in across], rotation=45, ha="right", rotation_mode="anchor"
    )
    sheet.legend(MARGIN, below, WIDE - 2 * MARGIN, _signs())
    sheet.note(MARGIN, below + legend + 1.5, _caption(analysis))
    return sheet.figure


def _draw_pair(axes: Axes, across: int, down: int, row: Any, legible: bool) -> None:
    """Fill one cell: backbone_b stands at the row, backbone_a at the column."""
    favoured, p = row.favoured, row.p_value
    significant = bool(row.significant)
    ground, ink = to_rgba(MISSING), INK
    if favoured != "" and not math.isnan(p):
        colour = ROW_BETTER if favoured == row.backbone_b else COLUMN_BETTER
        ground = to_rgba(colour, 1.0 if significant else _PALE)
        ink = ink_on(ground)
    cell = Rectangle((across, down), 1, 1, facecolor=ground, edgecolor=PAPER, linewidth=0.8)
    axes.add_patch(cell)
    number = p_value(p).removeprefix("0") or "–"
    write(
        axes,
        across + 0.5,
        down + 0.5,
        number if legible else "•" if significant else "",
        fontsize=NORMAL,
        fontweight="bold" if significant else "normal",
        color=ink,
    )


def _signs() -> list[tuple[str, Patch]]:
    return [(label, Patch(facecolor=to_rgba(colour, opacity))) for label, colour, opacity in _SIGNS]


def _caption(analysis: Analysis) -> str:
    threshold = float(analysis.pairwise["threshold"].iloc[0])
    n_datasets = len(analysis.means.dropna())
    return (
        f"p-values of two-sided Wilcoxon signed-rank tests over {n_datasets} datasets; significant "
        f"(bold) where p < {threshold:.2g} = 0.05 / {counted(len(analysis.pairwise), 'pair')}"
    )
