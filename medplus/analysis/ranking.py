"""How often each backbone is among the best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.heatmap import SEQUENTIAL, Panel, draw_panels, panels_width
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import short_names
from medplus.analysis.results.cells import ALL, complete_blocks, order_backbones, order_protocols
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Block, Column, Table, cross_block

Setting = tuple[str, str | int]
"""Protocol and size, of which either may be ``all``."""

_CAPTION = "How often each backbone takes each rank by mean ACC"


def ranking(benchmark: Benchmark) -> Section | None:
    """Return who ranks first; None for fewer than three datasets or backbones."""
    if not benchmark.supports(3, 3):
        return None
    n_backbones = benchmark.compared["backbone"].nunique()
    counts = top_ranks(benchmark.compared, min(5, n_backbones))
    columns = "protocol size backbone rank count n_settings"
    notes = []
    if benchmark.left_out:
        names = ", ".join(map(label_of, benchmark.left_out))
        notes.append(
            "Left out of rankings and tests, since they lack settings that all others have: "
            f"{names}."
        )
    return Section(
        name="ranking",
        title="Who ranks first",
        short="Ranking",
        text="In every dataset, protocol and size that all backbones of the table have, they are "
        "ordered by mean ACC; equal ones stay in the paper's order. Counted is how often each "
        "takes each rank.",
        tables=(Table.of("ranking", _CAPTION, counts, columns, blocks=list(_blocks(counts))),),
        figures=(
            Figure(
                "fig2_ranking",
                "Heat maps: in how many settings each backbone takes each rank.",
                partial(_draw, counts),
            ),
        ),
        sentences=tuple(winners(counts, tied_firsts(benchmark.compared))),
        notes=tuple(notes),
    )


_GROUP = ["protocol", "size"]


def top_ranks(cells: pd.DataFrame, top: int = 5) -> pd.DataFrame:
    """Count how often each backbone takes each of the first ranks (the paper's Figure 2).

    In each setting, a dataset at a protocol and a size, the backbones are ordered by mean ACC,
    best first. Of equals the one that comes first in `order_backbones` goes first, as in the
    paper. Settings that any backbone of the table lacks are left out.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.
    top : int, default 5
        Ranks that are counted.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, size, backbone, rank, count, n_settings, the last being the settings that
        are counted. Protocol and size are ``all`` where they are pooled: all × all, protocol × all,
        protocol × size. Every combination has its row.
    """
    ranked = _pooled(_ranked(cells))
    count = ranked.groupby([*_GROUP, "backbone", "rank"], sort=False).size().to_dict()
    n_settings = ranked[ranked["rank"] == 1].groupby(_GROUP, sort=False).size().to_dict()
    rows = [
        (*group, backbone, rank, count.get((*group, backbone, rank), 0), n_settings.get(group, 0))
        for group in _groups(cells)
        for backbone in order_backbones(cells["backbone"])
        for rank in range(1, top + 1)
    ]
    return pd.DataFrame(rows, columns=[*_GROUP, "backbone", "rank", "count", "n_settings"])


def tied_firsts(cells: pd.DataFrame) -> int:
    """Return the number of settings in which several backbones share the highest mean ACC.

    Parameters
    ----------
    cells : pandas.DataFrame
        As for `top_ranks`.
    """
    blocks = complete_blocks(cells.dropna(subset="acc_mean"))
    acc = settle(blocks["acc_mean"])
    setting = [blocks[name] for name in ("dataset", *_GROUP)]
    first = acc == acc.groupby(setting).transform("max")
    return int((first.groupby(setting).sum() > 1).sum())


def _ranked(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of all complete settings with their rank, 1 for the best."""
    blocks = complete_blocks(cells.dropna(subset="acc_mean"))
    place = order_backbones(cells["backbone"]).index
    ordered = blocks.assign(
        acc_mean=settle(blocks["acc_mean"]), place=blocks["backbone"].map(place)
    ).sort_values(["acc_mean", "place"], ascending=[False, True])
    return ordered.assign(rank=ordered.groupby(["dataset", *_GROUP]).cumcount() + 1)


def _pooled(ranked: pd.DataFrame) -> pd.DataFrame:
    of_protocol = ranked.assign(size=ALL)
    return pd.concat([of_protocol.assign(protocol=ALL), of_protocol, ranked])


def _groups(cells: pd.DataFrame) -> list[tuple[str, str | int]]:
    """Return protocol and size of each group that is counted, in the order of the table."""
    sizes = sorted(int(size) for size in cells["size"].unique())
    groups: list[tuple[str, str | int]] = [(ALL, ALL)]
    for protocol in order_protocols(cells["protocol"]):
        groups += [(protocol, ALL), *((protocol, size) for size in sizes)]
    return groups


def winners(ranking: pd.DataFrame, n_tied: int) -> Iterator[str]:
    """Yield who is first most often, over all settings."""
    pooled = ranking[(ranking["protocol"] == ALL) & (ranking["size"] == ALL)]
    firsts = pooled[pooled["rank"] == 1].set_index("backbone")["count"]
    total = pooled["n_settings"].max()
    if len(firsts) > 1 and total:
        most = list(firsts.index[firsts == firsts.max()])
        verb, each = ("are", " each") if len(most) > 1 else ("is", "")
        yield (
            f"{' and '.join(map(label_of, most))} {verb} first most often: in {firsts.max()} of "
            f"{total} settings{each}"
            + (f"; {n_tied} have several firsts, of which one is counted." if n_tied else ".")
        )


def _by_setting(ranking: pd.DataFrame) -> dict[Setting, tuple[int, pd.DataFrame]]:
    """Return the settings that are counted, and the counts of backbones × ranks."""
    names = order_backbones(ranking["backbone"])
    groups = ranking.groupby(["protocol", "size"], sort=False)
    return {
        group: (
            int(rows["n_settings"].iloc[0]),
            rows.pivot(index="backbone", columns="rank", values="count").reindex(names),
        )
        for group, rows in groups
    }


def _blocks(ranking: pd.DataFrame) -> Iterator[Block]:
    """Yield a block per protocol, with the ranks beside each other."""
    columns = {
        rank: Column(str(rank), numeric=True, group="Rank") for rank in sorted(set(ranking["rank"]))
    }
    for protocol, rows in ranking.groupby("protocol", sort=False):
        keys = list(zip(rows["size"], rows["backbone"], strict=True))
        counts = map(str, rows["count"])
        cells = dict(zip(zip(keys, rows["rank"], strict=True), counts, strict=True))
        pooled = "all protocols" if protocol == ALL else PROTOCOL_LABELS[str(protocol)]
        caption = f"{_CAPTION}: {pooled}"
        yield cross_block(caption, "size backbone", columns, cells, grouped=True)


_ROW, _TITLE, _TICKS = 3.7, 6.5, 5.0
_MANY = 20
_COLUMN_MAX = 14.0


def _draw(ranking: pd.DataFrame) -> Drawing:
    """Draw the counts of ranks: pooled, per protocol, and per protocol and size."""
    everything = _by_setting(ranking)
    found = {setting: counted for setting, counted in everything.items() if counted[0]}
    n_backbones = ranking["backbone"].nunique()
    backbones = _worth_showing(found[ALL, ALL][1])
    ranks = list(found[ALL, ALL][1].columns)

    def panel(setting: Setting, title: str) -> Panel:
        n_settings, counts = found[setting]
        shown = counts.reindex(backbones, columns=ranks).to_numpy()
        texts = [[str(count) if count else "" for count in row] for row in shown]
        return Panel(f"{title} ({n_settings})", list(map(str, ranks)), shown / n_settings, texts)

    rows = [
        [panel(setting, title) for setting, title in row.items() if setting in found]
        for row in _arrangement(everything)
    ]
    rows = [row for row in rows if row]
    names = list(short_names(backbones).values())
    left, height = MARGIN + text_width(names) + 2.0, _ROW * len(names)
    column = min(_COLUMN_MAX, (WIDE - left - MARGIN) / max(map(panels_width, rows)))
    row_height = _TITLE + height + _TICKS
    sheet = Sheet(WIDE, len(rows) * row_height + 7.0 + MARGIN)
    most = max(counts.max(axis=None) / n for n, counts in found.values())
    for line, row in enumerate(rows):
        top, width = line * row_height + _TITLE, column * panels_width(row)
        draw_panels(sheet.axes(left, top, width, height), row, names, SEQUENTIAL, most)
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
