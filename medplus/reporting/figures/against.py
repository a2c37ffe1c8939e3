"""Figure 11: your accuracy beside the paper's."""

from __future__ import annotations

from matplotlib.figure import Figure

from medplus.analysis.drawing.palette import setting_label
from medplus.analysis.drawing.sheet import (
    MARGIN,
    WIDE,
    Sheet,
    backbone_handle,
    backbone_style,
    legend_height,
)
from medplus.analysis.drawing.style import GREY, PAPER, short_names, signs
from medplus.analysis.format import one_line
from medplus.analysis.results.cells import order_backbones
from medplus.reporting.analysis import Analysis

_TOP, _LEFT, _HEIGHT, _BELOW = 4.0, 14.0, 80.0, 11.0


def draw_against(analysis: Analysis) -> Figure | None:
    """Draw your ACC less the paper's over the paper's; hollow where it fails the tolerance."""
    frame = analysis.against
    if frame is None or frame.empty:
        return None
    backbones = order_backbones(frame["backbone"])
    names, drawn = short_names(backbones), signs(analysis.cells["backbone"])
    below = _TOP + _HEIGHT + _BELOW
    sheet = Sheet(WIDE, below + legend_height(list(names.values()), WIDE - 2 * MARGIN) + MARGIN)
    axes = sheet.axes(_LEFT, _TOP, WIDE - _LEFT - MARGIN, _HEIGHT)
    for row in frame.itertuples():
        sign = drawn[row.backbone]
        style = backbone_style(sign, 5.0)
        if not row.passed:
            style |= {"color": PAPER, "markeredgecolor": sign.colour, "markeredgewidth": 1.2}
        setting = setting_label(row.protocol, row.size)
        said = f"{one_line(row.dataset)}, {names[row.backbone]}, {setting}: {row.difference:+.2f}"
        axes.plot([row.paper_acc], [row.difference], linestyle="none", label=said, **style)
    axes.axhline(0.0, color=GREY, lw=0.6)
    for tolerance in frame["tolerance"].unique():
        for y in (-tolerance, tolerance):
            axes.axhline(y, color=GREY, lw=0.8, ls=":")
    axes.margins(y=0.1)
    axes.grid()
    axes.set_xlabel("the paper's ACC, %")
    axes.set_ylabel("yours less the paper's, percent points")
    handles = [(names[name], backbone_handle(drawn[name], 5.0, line=False)) for name in names]
    sheet.legend(MARGIN, below, WIDE - 2 * MARGIN, handles)
    return sheet.figure
