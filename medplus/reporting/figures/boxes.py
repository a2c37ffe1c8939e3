"""Figure 4: how accuracy spreads over datasets."""

from __future__ import annotations

import numpy as np
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure

from medplus.analysis.drawing.rows import Rows
from medplus.analysis.drawing.style import GREY, INK
from medplus.analysis.format import read_percent
from medplus.reporting.analysis import Analysis


def draw_boxes(analysis: Analysis) -> Figure | None:
    """Draw Tukey's boxes over datasets by protocol, backbone and size."""
    cells = analysis.cells.dropna(subset="acc_mean")
    if cells.empty:
        return None
    rows = Rows(cells, analysis.cells["backbone"], "ACC, %")
    found = dict(iter(cells.groupby(["protocol", "backbone", "size"])["acc_mean"]))
    for protocol, axes in rows.panels():
        there = [one for one in rows.places() if (protocol, one.backbone, one.size) in found]
        boxes = [
            boxplot_stats(found[protocol, one.backbone, one.size].to_numpy())[0] for one in there
        ]
        low, q1, median, q3, high = (
            np.array([box[part] for box in boxes])
            for part in ("whislo", "q1", "med", "q3", "whishi")
        )
        middles, half = np.array([one.middle for one in there]), rows.height * 0.375
        axes.hlines([*middles, *middles], [*low, *q3], [*q1, *high], color=GREY, lw=0.6)
        axes.barh(
            middles,
            q3 - q1,
            2 * half,
            q1,
            color=[one.colour for one in there],
            edgecolor=INK,
            lw=0.4,
            label=[
                f"{one.label}: median {read_percent(value)}"
                for one, value in zip(there, median, strict=True)
            ],
        )
        axes.vlines(median, middles - half, middles + half, color=INK, lw=0.9)
        beyond = [
            (acc, middle)
            for middle, box in zip(middles, boxes, strict=True)
            for acc in box["fliers"]
        ]
        axes.plot(*np.reshape(beyond, (-1, 2)).T, ".", ms=2.2, color=GREY)
        axes.set_xlim(max(0.0, cells["acc_mean"].min() - 4.0), 102.0)
    return rows.figure
