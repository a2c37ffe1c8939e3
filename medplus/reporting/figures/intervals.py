"""Figure 10: how certain the means over datasets are."""

from __future__ import annotations

from matplotlib.figure import Figure

from medplus.analysis.drawing.rows import Rows
from medplus.analysis.drawing.sheet import backbone_style
from medplus.analysis.format import interval, read_percent
from medplus.reporting.analysis import Analysis


def draw_intervals(analysis: Analysis) -> Figure | None:
    """Draw mean ACC with its 95 % interval over datasets by protocol, backbone and size."""
    frame = analysis.intervals
    frame = frame[frame["over"] == "datasets"].dropna(subset="low") if len(frame) else frame
    if frame.empty:
        return None
    found = {(row.protocol, row.backbone, row.size): row for row in frame.itertuples()}
    rows = Rows(frame, analysis.cells["backbone"], "mean ACC, %")
    for protocol, axes in rows.panels():
        there = [one for one in rows.places() if (protocol, one.backbone, one.size) in found]
        intervals = [found[protocol, one.backbone, one.size] for one in there]
        axes.hlines(
            [one.middle for one in there],
            [one.low for one in intervals],
            [one.high for one in intervals],
            color=[one.colour for one in there],
            lw=1.6,
        )
        for place, one in zip(there, intervals, strict=True):
            said = f"{place.label}: {read_percent(one.mean)} ({interval(one.low, one.high)})"
            style = backbone_style(place.sign, 3.5)
            axes.plot([one.mean], [place.middle], linestyle="none", label=said, **style)
        axes.set_xlim(frame["low"].min() - 1.0, frame["high"].max() + 1.0)
    return rows.figure
