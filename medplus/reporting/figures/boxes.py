"""Figure 4: how accuracy spreads over datasets."""

from __future__ import annotations

from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.rows import Rows
from medplus.reporting.figures.style import GREY, INK


def draw_boxes(analysis: Analysis) -> Figure | None:
    """Draw Tukey's boxes over datasets by protocol, backbone and size."""
    cells = analysis.cells.dropna(subset="acc_mean")
    if cells.empty:
        return None
    rows = Rows(cells, analysis.cells["backbone"], "ACC, %")
    found = dict(iter(cells.groupby(["protocol", "backbone", "size"])["acc_mean"]))
    for protocol, axes in rows.panels():
        for name, size, middle, colour, _ in rows.places():
            if (protocol, name, size) not in found:
                continue
            (box,) = boxplot_stats(found[protocol, name, size].to_numpy())
            whiskers = [box["whislo"], box["q3"]], [box["q1"], box["whishi"]]
            axes.hlines([middle] * 2, *whiskers, color=GREY, lw=0.6)
            axes.barh(
                middle,
                box["q3"] - box["q1"],
                rows.height * 0.75,
                box["q1"],
                color=colour,
                edgecolor=INK,
                lw=0.4,
                label=f"{rows.names[name]}, {size} px: median {box['med']:.2f}",
            )
            half = rows.height * 0.375
            axes.vlines(box["med"], middle - half, middle + half, color=INK, lw=0.9)
            beyond = box["fliers"]
            axes.plot(beyond, [middle] * len(beyond), ".", ms=2.2, color=GREY)
        axes.set_xlim(max(0.0, cells["acc_mean"].min() - 4.0), 102.0)
    return rows.figure
