"""Figure 3: on how many datasets a larger image size helps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.figures.heatmap import DIVERGING, draw_heatmap, label_columns, label_rows
from medplus.reporting.figures.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import NORMAL, short_names
from medplus.reporting.format import MISSING
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.series import gains_by_step

_ROW, _TOP, _BELOW, _GAP, _COLUMN_MAX = 5.0, 7.0, 5.0, 4.0, 18.0


def draw_gains(analysis: Analysis) -> Figure | None:
    """Draw a panel per protocol: backbones by steps from one size to the next."""
    found = gains_by_step(analysis.gains)
    if not found:
        return None
    backbones = order_backbones(backbone for _, backbone, _ in found)
    protocols = order_protocols(protocol for protocol, _, _ in found)
    steps = sorted({step for _, _, step in found})
    names = list(short_names(backbones).values())
    left = MARGIN + text_width(names) + 2.0
    width = (WIDE - left - MARGIN - (len(protocols) - 1) * _GAP) / len(protocols)
    width = min(width, _COLUMN_MAX * len(steps))
    height = _ROW * len(backbones)
    sheet = Sheet(WIDE, _TOP + height + _BELOW + 5.0 + MARGIN)
    panels = sheet.panels(len(protocols), left, _TOP, width, height, _GAP)
    for axes, protocol in zip(panels, protocols, strict=True):
        cells = [[found.get((protocol, name, step)) for step in steps] for name in backbones]
        shares = np.array([[c[0] / c[1] if c else np.nan for c in row] for row in cells])
        texts = [[f"{c[0]}/{c[1]}" if c else MISSING for c in row] for row in cells]
        draw_heatmap(axes, shares, texts, DIVERGING, size=NORMAL)
        axes.set_title(PROTOCOL_LABELS[protocol])
        label_rows(axes, names if axes is panels[0] else [""] * len(names))
        label_columns(axes, [f"{first}→{second}" for first, second in steps])
    sheet.note(
        left,
        _TOP + height + _BELOW + 1.0,
        "datasets with a higher mean ACC at the larger size, of those that have both sizes (px)",
    )
    return sheet.figure
