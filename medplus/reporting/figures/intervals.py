"""Figure 10: how certain the means over datasets are."""

from __future__ import annotations

from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.rows import Rows
from medplus.reporting.figures.sheet import backbone_style
from medplus.reporting.format import interval, read_percent


def draw_intervals(analysis: Analysis) -> Figure | None:
    """Draw mean ACC with its 95 % interval over datasets by protocol, backbone and size."""
    frame = analysis.intervals
    frame = frame[frame["over"] == "datasets"].dropna(subset="low") if len(frame) else frame
    if frame.empty:
        return None
    found = {(row.protocol, row.backbone, row.size): row for row in frame.itertuples()}
    rows = Rows(frame, analysis.cells["backbone"], "mean ACC, %")
    for protocol, axes in rows.panels():
        for name, size, middle, colour, sign in rows.places():
            if row := found.get((protocol, name, size)):
                axes.plot([row.low, row.high], [middle] * 2, color=colour, lw=1.6)
                said = f"{read_percent(row.mean)} ({interval(row.low, row.high)})"
                style = backbone_style(sign, 3.5) | {"label": f"{rows.names[name]}, {size} px: {said}"}
                axes.plot([row.mean], [middle], linestyle="none", **style)
        axes.set_xlim(frame["low"].min() - 1.0, frame["high"].max() + 1.0)
    return rows.figure
