"""Figure 2: how often each backbone is among the best."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, order_backbones, order_protocols
from medplus.reporting.figures.heatmap import SEQUENTIAL, draw_heatmap, label_columns, label_rows
from medplus.reporting.figures.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.reporting.figures.style import GREY, NORMAL, SMALL, short_names
from medplus.reporting.palette import PROTOCOL_LABELS

_ROW, _TITLE, _TICKS, _GAP = 3.7, 6.5, 5.0, 3.0
_MANY = 20
_COLUMN_MAX = 14.0


@dataclass(frozen=True)
class _Panel:
    protocol: str
    size: str | int
    title: str


def draw_ranking(analysis: Analysis) -> Figure | None:
    """Draw the counts of ranks: pooled, per protocol, and per protocol and size."""
    ranking = analysis.ranking
    n_settings = {
        (row.protocol, row.size): row.n_settings for row in analysis.settings.itertuples()
    }
    if ranking["backbone"].nunique() < 2 or not n_settings.get((ALL, ALL)):
        return None
    backbones, left_out = _worth_showing(ranking)
    rows = [
        [panel for panel in row if n_settings.get((panel.protocol, panel.size))]
        for row in _arrangement(ranking)
    ]
    rows = [row for row in rows if row]
    names = list(short_names(backbones).values())
    left = MARGIN + text_width(names) + 2.0
    across = max(len(row) for row in rows)
    width = (WIDE - left - MARGIN - (across - 1) * _GAP) / across
    # With four backbones nobody can be fifth.
    ranks = sorted(set(ranking["rank"]))[: ranking["backbone"].nunique()]
    width = min(width, _COLUMN_MAX * len(ranks))
    height = _ROW * len(backbones)
    below = len(rows) * (_TITLE + height + _TICKS)
    sheet = Sheet(WIDE, below + 7.0 + MARGIN)
    groups = dict(iter(ranking.groupby(["protocol", "size"], sort=False)))
    shares = [
        ranking.loc[(ranking["protocol"] == p) & (ranking["size"] == s), "count"].max() / n
        for (p, s), n in n_settings.items()
        if n
    ]
    for line, row in enumerate(rows):
        for place, panel in enumerate(row):
            top = line * (_TITLE + height + _TICKS) + _TITLE
            axes = sheet.axes(left + place * (width + _GAP), top, width, height)
            number = n_settings[panel.protocol, panel.size]
            found = groups[panel.protocol, panel.size].pivot(
                index="backbone", columns="rank", values="count"
            )
            found = found.reindex(backbones, columns=ranks)
            texts = [[str(count) for count in of_backbone] for of_backbone in found.to_numpy()]
            draw_heatmap(axes, found.to_numpy() / number, texts, SEQUENTIAL, max(shares))
            axes.set_title(f"{panel.title} ({number})", fontsize=NORMAL)
            label_rows(axes, names if place == 0 else [""] * len(names))
            label_columns(axes, [str(rank) for rank in ranks])
    sheet.text(left, below + 1.0, _legend(left_out), fontsize=SMALL, color=GREY)
    return sheet.figure


def _legend(left_out: int) -> str:
    text = (
        "columns: rank by mean ACC; in brackets: settings counted (dataset, protocol and size); "
        "the darker,\nthe larger the share of them"
    )
    return text + (f"; {left_out} more backbones take these ranks less often" if left_out else "")


def _arrangement(ranking: pd.DataFrame) -> list[list[_Panel]]:
    """Return rows of panels, without those that would only say the same again."""
    protocols = order_protocols(ranking["protocol"])
    sizes = sorted({size for size in ranking["size"] if size != ALL})
    first = [_Panel(ALL, ALL, "all" if len(protocols) > 1 else PROTOCOL_LABELS[protocols[0]])]
    if len(protocols) > 1:
        first += [_Panel(name, ALL, PROTOCOL_LABELS[name]) for name in protocols]
    if len(sizes) < 2:
        return [first]
    rest = [
        [_Panel(name, size, f"{PROTOCOL_LABELS[name]}, {size} px") for size in sizes]
        for name in protocols
    ]
    most = max(4, len(first))
    cut = [row[start : start + most] for row in rest for start in range(0, len(row), most)]
    return [first, *cut]


def _worth_showing(ranking: pd.DataFrame) -> tuple[list[str], int]:
    """Return the backbones to show, of very many those most often counted, and how many are not."""
    backbones = order_backbones(ranking["backbone"])
    pooled = ranking[(ranking["protocol"] == ALL) & (ranking["size"] == ALL)]
    counted = pooled.groupby("backbone")["count"].sum().reindex(backbones)
    most = set(counted.sort_values(ascending=False, kind="stable").index[:_MANY])
    shown = [name for name in backbones if name in most]
    return shown, len(backbones) - len(shown)
