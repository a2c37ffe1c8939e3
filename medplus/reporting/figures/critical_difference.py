"""Figure 7: mean ranks, and which of them do not differ significantly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, backbone_style, text_width
from medplus.analysis.drawing.style import (
    GREY,
    INK,
    LARGE,
    Sign,
    rank_ticks,
    short_names,
    signs,
)
from medplus.analysis.format import p_equals, percent
from medplus.reporting.analysis import Analysis
from medplus.reporting.statistics.friedman import Friedman

_AXIS, _BAR, _ROW = 15.0, 2.6, 4.6


@dataclass(frozen=True)
class _Scale:
    """Where a rank stands, in millimetres: 1 at the left."""

    n_backbones: int
    left: float
    right: float

    def at(self, rank: float) -> float:
        step = (self.right - self.left) / (self.n_backbones - 1)
        return self.left + (rank - 1) * step


def draw_critical_difference(analysis: Analysis) -> Figure | None:
    """Draw a critical-difference diagram [1]_.

    References
    ----------
    .. [1] Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
       figure 1.
    """
    result = analysis.friedman
    if result is None:
        return None
    names = short_names(list(result.mean_ranks.index))
    half = -(-len(names) // 2)
    bars = _AXIS + 3.5
    labels = bars + _BAR * max(1, len(result.cliques)) + 1.0
    height = labels + _ROW * half + LINE + MARGIN
    sheet = Sheet(WIDE, height)
    axes = sheet.axes(0, 0, WIDE, height)  # measured in millimetres, as the sheet
    axes.set_axis_off()
    axes.set_xlim(0, WIDE)
    axes.set_ylim(height, 0)
    margin = MARGIN + text_width(names.values()) + 14.0
    scale = _Scale(len(names), margin, WIDE - margin)
    _draw_scale(axes, scale, result)
    _draw_names(axes, scale, result, names, signs(analysis.cells["backbone"]), labels)
    for line, clique in enumerate(result.cliques):
        ends = [scale.at(result.mean_ranks[name]) for name in (clique[0], clique[-1])]
        y = bars + _BAR * line
        axes.plot([ends[0] - 0.7, ends[1] + 0.7], [y, y], color=INK, lw=2.6, label=f"clique {line}")
    sheet.note(MARGIN, height - LINE - 1.0, _caption(result))
    return sheet.figure


def _draw_scale(axes: Axes, scale: _Scale, result: Friedman) -> None:
    """Draw the axis of ranks, and over it the length of the critical difference."""
    axes.plot([scale.left, scale.right], [_AXIS, _AXIS], color=INK, lw=0.8)
    for rank in rank_ticks(scale.n_backbones):
        x = scale.at(rank)
        axes.plot([x, x], [_AXIS - 1.2, _AXIS], color=INK, lw=0.8)
        axes.text(x, _AXIS - 1.8, str(rank), ha="center", va="bottom")
    axes.text(scale.left - 4.0, _AXIS, "mean rank\n(1 = best)", ha="right", va="center", color=GREY)
    end, y = scale.at(1 + result.critical_difference), 6.5
    axes.plot([scale.left, end], [y, y], color=INK, lw=0.8, label="critical difference")
    for x in (scale.left, end):
        axes.plot([x, x], [y - 0.9, y + 0.9], color=INK, lw=0.8)
    text = f"critical difference {percent(result.critical_difference)}"
    axes.text(scale.left, y - 1.4, text, ha="left", va="bottom")


def _draw_names(
    axes: Axes,
    scale: _Scale,
    result: Friedman,
    names: Mapping[str, str],
    drawn: Mapping[str, Sign],
    top: float,
) -> None:
    """Write the better half at the left, the other at the right, each joined to its place."""
    ranks = result.mean_ranks.sort_values(kind="stable")
    half = -(-len(ranks) // 2)
    for place, (backbone, rank) in enumerate(ranks.items()):
        left = place < half
        line = place if left else len(ranks) - 1 - place
        x, y = scale.at(rank), top + _ROW * (line + 0.5)
        edge = scale.left - 4.0 if left else scale.right + 4.0
        sign = drawn[str(backbone)]
        axes.plot([x, x, edge], [_AXIS, y, y], color=sign.colour, lw=0.8, zorder=1)
        axes.plot(
            [x],
            [_AXIS],
            linestyle="none",
            label=names[str(backbone)],
            zorder=4,
            **backbone_style(sign, 5.0),
        )
        outwards = -1 if left else 1
        side = "right" if left else "left"
        axes.plot([edge], [y], linestyle="none", **backbone_style(sign, 5.0))
        axes.text(
            edge + outwards * 2.0, y, percent(rank), ha=side, va="center_baseline", color=GREY
        )
        name = names[str(backbone)]
        axes.text(
            edge + outwards * 10.5, y, name, ha=side, va="center_baseline", fontsize=LARGE - 1
        )


def _caption(result: Friedman) -> str:
    return (
        f"Friedman's test over {result.n_datasets} datasets: {p_equals(result.p_value)}. Bars "
        "join backbones whose mean ranks do not differ significantly (Nemenyi, 0.05)."
    )
