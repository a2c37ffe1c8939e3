"""Figure 8: how well a cheap setting predicts the ranks of an expensive one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medplus.naming import counted
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones
from medplus.reporting.figures.sheet import (
    LINE,
    MARGIN,
    WIDE,
    Sheet,
    backbone_handle,
    backbone_style,
    legend_height,
)
from medplus.reporting.figures.style import FAINT, GREY, Sign, rank_ticks, short_names, signs
from medplus.reporting.format import percent
from medplus.reporting.palette import setting_label
from medplus.reporting.statistics.transfer import Transfer

_PANEL, _TOP, _LEFT, _BELOW, _GAP = 68.0, 14.5, 14.0, 12.0, 18.0
_SIGN = 6.0


def draw_transfer(analysis: Analysis) -> Figure | None:
    """Draw a panel per pair of settings: the ranks at one over those at the other."""
    transfers = analysis.transfers
    if not transfers:
        return None
    backbones = order_backbones(name for one in transfers for name in one.points["backbone"])
    names, drawn = short_names(backbones), signs(analysis.cells["backbone"])
    labels = list(names.values())
    across = min(2, len(transfers))
    down = -(-len(transfers) // across)
    row = _TOP + _PANEL + _BELOW
    notes = 2 * LINE + 1.0
    # Beside a single panel there is room for the legend.
    aside = across == 1 and len(labels) * LINE < _PANEL
    legend = 0.0 if aside else legend_height(labels, WIDE - 2 * MARGIN)
    sheet = Sheet(WIDE, down * row + notes + legend + MARGIN)
    for number, one in enumerate(transfers):
        line, place = divmod(number, across)
        left = _LEFT + place * (_PANEL + _GAP)
        axes = sheet.axes(left, line * row + _TOP, _PANEL, _PANEL)
        _draw_panel(axes, one, drawn, names)
        sheet.text(left, line * row + 2.5, _title(one), linespacing=1.35)
    entries = [(names[name], backbone_handle(drawn[name], _SIGN, line=False)) for name in backbones]
    if aside:
        sheet.legend(_LEFT + _PANEL + MARGIN, _TOP, 0, entries)
    else:
        sheet.legend(MARGIN, down * row, WIDE - 2 * MARGIN, entries)
    sheet.note(
        MARGIN,
        sheet.height - MARGIN - notes + 2.0,
        "coloured: mean rank over datasets (1 = best); grey: ranks on single datasets, the larger "
        "the more datasets;\nline: equal ranks, above it a backbone does worse than the cheap "
        "setting promised",
    )
    return sheet.figure


def _draw_panel(
    axes: Axes, one: Transfer, drawn: Mapping[str, Sign], names: Mapping[str, str]
) -> None:
    points = one.points
    crowd = points.groupby(["cheap_rank", "target_rank"]).size().reset_index(name="n")
    step = _PANEL / 25.4 * 72 / (one.n_backbones + 1)  # points from one rank to the next
    largest = crowd["n"].max()
    axes.scatter(
        crowd["cheap_rank"],
        crowd["target_rank"],
        s=(0.8 * min(step, 12.0)) ** 2 * crowd["n"] / largest,
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label="datasets",
    )
    axes.plot([1, one.n_backbones], [1, one.n_backbones], color=GREY, lw=0.6, ls="--", zorder=1)
    means = one.means
    for backbone in order_backbones(means.index):
        axes.plot(
            [means.loc[backbone, "cheap_rank"]],
            [means.loc[backbone, "target_rank"]],
            linestyle="none",
            label=names[backbone],
            zorder=3,
            **backbone_style(drawn[backbone], _SIGN),
        )
    ticks = rank_ticks(one.n_backbones)
    axes.set_xlim(0.4, one.n_backbones + 0.6)
    axes.set_ylim(0.4, one.n_backbones + 0.6)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(f"rank by {setting_label(*one.cheap)}")
    axes.set_ylabel(f"rank by {setting_label(*one.target)}")
    axes.grid(color=FAINT)


def _title(one: Transfer) -> str:
    rho = "ρ not defined" if math.isnan(one.rho) else f"ρ = {percent(one.rho)}"
    if not math.isnan(one.low):
        rho += f" (95 % interval {percent(one.low)} to {percent(one.high)})"
    return (
        f"{one.label}, {counted(one.n_datasets, 'dataset')}\n{rho}\n"
        f"ACC lost by trusting it: {percent(one.regret)} percent points"
    )
