"""The clinical panel of a run: operating points, curves, calibration, subgroups and its mistakes.

`panel` and `examine` return it, `sections_of` what the report says of it, and the functions
`plot_…` draw its curves into matplotlib axes.
"""

from medplus.analysis.panel.all_classes import Panel, panel
from medplus.analysis.panel.curves import (
    plot_confusion,
    plot_net_benefit,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from medplus.analysis.panel.examination import Examination, examine, sections_of
from medplus.analysis.panel.versus import compare_panels

__all__ = [
    "Examination",
    "Panel",
    "compare_panels",
    "examine",
    "panel",
    "plot_confusion",
    "plot_net_benefit",
    "plot_precision_recall",
    "plot_reliability",
    "plot_roc",
    "sections_of",
]
