"""Figure 3: on how many datasets a larger image size helps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from medplus.analysis.drawing.heatmap import DIVERGING, Block, blocks_width, draw_blocks
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import NORMAL, short_names
from medplus.analysis.format import MISSING
from medplus.analysis.results.cells import order_backbones, order_protocols
from medplus.analysis.series import gains_by_step
from medplus.reporting.analysis import Analysis

_ROW, _TOP, _BELOW, _COLUMN_MAX = 5.0, 7.0, 5.0, 18.0


def draw_gains(analysis: Analysis) -> Figure | None:
    """Draw a block per protocol: backbones by steps from one size to the next."""
    found = gains_by_step(analysis.gains)
    if not found:
        return None
    backbones = order_backbones(backbone for _, backbone, _ in found)
    steps = sorted({step for _, _, step in found})
    blocks = []
    for protocol in order_protocols(protocol for protocol, _, _ in found):
        cells = [[found.get((protocol, name, step)) for step in steps] for name in backbones]
        blocks.append(
            Block(
                PROTOCOL_LABELS[protocol],
                [f"{smaller}→{larger}" for smaller, larger in steps],
                np.array([[c[0] / c[1] if c else np.nan for c in row] for row in cells]),
                [[f"{c[0]}/{c[1]}" if c else MISSING for c in row] for row in cells],
            )
        )
    names = list(short_names(backbones).values())
    left, height = MARGIN + text_width(names) + 2.0, _ROW * len(names)
    width = min(WIDE - left - MARGIN, _COLUMN_MAX * blocks_width(blocks))
    sheet = Sheet(WIDE, _TOP + height + _BELOW + 5.0 + MARGIN)
    draw_blocks(sheet.axes(left, _TOP, width, height), blocks, names, DIVERGING, size=NORMAL)
    sheet.note(
        left,
        _TOP + height + _BELOW + 1.0,
        "datasets with a higher mean ACC at the larger size, of those that have both sizes (px)",
    )
    return sheet.figure
