"""Figure 3: on how many datasets a larger image size helps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.figures.heatmap import DIVERGING, draw_heatmap, label_columns, label_rows
from medplus.reporting.figures.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import GREY, NORMAL, SMALL, short_names
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.table import MISSING

_ROW, _TOP, _BELOW, _GAP, _COLUMN_MAX = 5.0, 7.0, 5.0, 4.0, 18.0


def draw_gains(analysis: Analysis) -> Figure | None:
    """Draw a panel per protocol: backbones by steps from one size to the next."""
    gains = analysis.gains
    if gains.empty:
        return None
    backbones, protocols = order_backbones(gains["backbone"]), order_protocols(gains["protocol"])
    steps = sorted(set(zip(gains["from_size"], gains["to_size"], strict=True)))
    names = list(short_names(backbones).values())
    left = MARGIN + text_width(names) + 2.0
    width = (WIDE - left - MARGIN - (len(protocols) - 1) * _GAP) / len(protocols)
    width = min(width, _COLUMN_MAX * len(steps))
    height = _ROW * len(backbones)
    sheet = Sheet(WIDE, _TOP + height + _BELOW + 5.0 + MARGIN)
    for place, protocol in enumerate(protocols):
        axes = sheet.axes(left + place * (width + _GAP), _TOP, width, height)
        of_it = gains[gains["protocol"] == protocol]
        found = {
            (row.backbone, (row.from_size, row.to_size)): (row.improved, row.n_datasets)
            for row in of_it.itertuples()
        }
        cells = [[found.get((backbone, step)) for step in steps] for backbone in backbones]
        shares = np.array([[c[0] / c[1] if c else np.nan for c in row] for row in cells])
        texts = [[f"{c[0]}/{c[1]}" if c else MISSING for c in row] for row in cells]
        draw_heatmap(axes, shares, texts, DIVERGING, size=NORMAL)
        axes.set_title(PROTOCOL_LABELS[protocol])
        label_rows(axes, names if place == 0 else [""] * len(names))
        label_columns(axes, [f"{first}→{second}" for first, second in steps])
    sheet.text(
        left,
        _TOP + height + _BELOW + 1.0,
        "datasets with a higher mean ACC at the larger size, of those that have both sizes (px)",
        fontsize=SMALL,
        color=GREY,
    )
    return sheet.figure
