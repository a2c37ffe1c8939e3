"""Figure 2: how often each backbone is among the best."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, order_protocols
from medplus.reporting.figures.heatmap import SEQUENTIAL, draw_heatmap, label_columns, label_rows
from medplus.reporting.figures.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import NORMAL, short_names
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.series import Setting, ranks_by_setting

_ROW, _TITLE, _TICKS, _GAP = 3.7, 6.5, 5.0, 3.0
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
    names = list(short_names(backbones).values())
    rows = [
        kept
        for row in _arrangement(everything)
        if (kept := {setting: title for setting, title in row.items() if setting in found})
    ]
    left, across = MARGIN + text_width(names) + 2.0, max(map(len, rows))
    # With four backbones nobody can be fifth.
    ranks = list(found[ALL, ALL][1].columns[:n_backbones])
    width = (WIDE - left - MARGIN - (across - 1) * _GAP) / across
    width = min(width, _COLUMN_MAX * len(ranks))
    height = _ROW * len(backbones)
    below = len(rows) * (_TITLE + height + _TICKS)
    sheet = Sheet(WIDE, below + 7.0 + MARGIN)
    most = max(counts.max(axis=None) / n for n, counts in found.values())
    for line, row in enumerate(rows):
        top = line * (_TITLE + height + _TICKS) + _TITLE
        panels = sheet.panels(len(row), left, top, width, height, _GAP)
        for axes, (setting, title) in zip(panels, row.items(), strict=True):
            number, counts = found[setting]
            shown = counts.reindex(backbones, columns=ranks).to_numpy()
            texts = [[str(count) for count in of_backbone] for of_backbone in shown]
            draw_heatmap(axes, shown / number, texts, SEQUENTIAL, most)
            axes.set_title(f"{title} ({number})", fontsize=NORMAL)
            label_rows(axes, names if axes is panels[0] else [""] * len(names))
            label_columns(axes, [str(rank) for rank in ranks])
    left_out = n_backbones - len(backbones)
    sheet.note(left, below + 1.0, _legend(left_out))
    return sheet.figure


def _legend(left_out: int) -> str:
    text = (
        "columns: rank by mean ACC; in brackets: settings counted (dataset, protocol and size); "
        "the darker,\nthe larger the share of them"
    )
    return text + (f"; {left_out} more backbones take these ranks less often" if left_out else "")


def _arrangement(settings: Iterable[Setting]) -> list[dict[Setting, str]]:
    """Return rows of panels under their titles, without those that would say the same again."""
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
