"""How often each backbone is among the best."""

from __future__ import annotations

import pandas as pd

from medplus.reporting.cells import (
    ALL,
    comparable,
    complete_blocks,
    order_backbones,
    order_protocols,
)
from medplus.reporting.statistics.ties import settle

_GROUP = ["protocol", "size"]


def top_ranks(cells: pd.DataFrame, top: int = 5) -> pd.DataFrame:
    """Count how often each backbone takes each of the first ranks (the paper's Figure 2).

    In each setting, a dataset at a protocol and a size, the backbones are ordered by mean ACC,
    best first. Of equals the one that comes first in `order_backbones` goes first, as in the
    paper. Settings that any backbone of the table lacks are left out.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.
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
    blocks = complete_blocks(comparable(cells)[0].dropna(subset="acc_mean"))
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
