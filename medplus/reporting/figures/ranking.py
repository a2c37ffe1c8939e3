"""Figure 2: how often each backbone is among the best."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from medplus.analysis.drawing.heatmap import SEQUENTIAL, Block, blocks_width, draw_blocks
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import short_names
from medplus.analysis.results.cells import ALL, order_protocols
from medplus.analysis.series import Setting, ranks_by_setting
from medplus.reporting.analysis import Analysis

_ROW, _TITLE, _TICKS = 3.7, 6.5, 5.0
_MANY = 20
_COLUMN_MAX = 14.0


def draw_ranking(analysis: Analysis) -> Figure | None:
    """Draw the counts of ranks: pooled, per protocol, and per protocol and size."""
    everything = ranks_by_setting(analysis.ranking)
    found = {setting: counted for setting, counted in everything.items() if counted[0]}
    n_backbones = analysis.ranking["backbone"].nunique()
    if n_backbones < 2 or not found:
        return None
    backbones = _worth_showing(found[ALL, ALL][1])
    # With four backbones nobody can be fifth.
    ranks = list(found[ALL, ALL][1].columns[:n_backbones])

    def block(setting: Setting, title: str) -> Block:
        n_settings, counts = found[setting]
        shown = counts.reindex(backbones, columns=ranks).to_numpy()
        texts = [[str(count) if count else "" for count in row] for row in shown]
        return Block(f"{title} ({n_settings})", list(map(str, ranks)), shown / n_settings, texts)

    rows = [
        [block(setting, title) for setting, title in row.items() if setting in found]
        for row in _arrangement(everything)
    ]
    rows = [row for row in rows if row]
    names = list(short_names(backbones).values())
    left, height = MARGIN + text_width(names) + 2.0, _ROW * len(names)
    column = min(_COLUMN_MAX, (WIDE - left - MARGIN) / max(map(blocks_width, rows)))
    row_height = _TITLE + height + _TICKS
    sheet = Sheet(WIDE, len(rows) * row_height + 7.0 + MARGIN)
    most = max(counts.max(axis=None) / n for n, counts in found.values())
    for line, row in enumerate(rows):
        top, width = line * row_height + _TITLE, column * blocks_width(row)
        draw_blocks(sheet.axes(left, top, width, height), row, names, SEQUENTIAL, most)
    sheet.note(left, len(rows) * row_height + 1.0, _legend(n_backbones - len(backbones)))
    return sheet.figure


def _legend(left_out: int) -> str:
    text = (
        "columns: rank by mean ACC; in brackets: settings counted (dataset, protocol and size); "
        "the stronger the colour,\nthe larger the share of them"
    )
    return text + (f"; {left_out} more backbones take these ranks less often" if left_out else "")


def _arrangement(settings: Iterable[Setting]) -> list[dict[Setting, str]]:
    """Return rows of settings under their titles, without those that would say the same again."""
    protocols = order_protocols(protocol for protocol, _ in settings)
    sizes = sorted({size for _, size in settings if size != ALL})
    several = len(protocols) > 1
    first: dict[Setting, str] = {(ALL, ALL): "all" if several else PROTOCOL_LABELS[protocols[0]]}
    for name in protocols if several else ():
        first[name, ALL] = PROTOCOL_LABELS[name]
    if len(sizes) < 2:
        return [first]
    most = max(4, len(first))
    rest: list[dict[Setting, str]] = [
        {(name, size): f"{PROTOCOL_LABELS[name]}, {size} px" for size in part}
        for name in protocols
        for part in (sizes[start : start + most] for start in range(0, len(sizes), most))
    ]
    return [first, *rest]


def _worth_showing(counts: pd.DataFrame) -> list[str]:
    """Return the backbones to show: of very many those most often counted."""
    counted = counts.sum(axis=1).sort_values(ascending=False, kind="stable")
    most = set(counted.index[:_MANY])
    return [name for name in counts.index if name in most]
