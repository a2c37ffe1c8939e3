"""How often each backbone is among the best."""

from __future__ import annotations

import pandas as pd

from medplus.reporting.cells import ALL, complete_blocks, order_backbones, order_protocols
from medplus.reporting.statistics.ties import settle

_SETTING = ["dataset", "protocol", "size"]


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
        Columns protocol, size, backbone, rank, count. Protocol and size are ``all`` where they
        are pooled: all × all, protocol × all, protocol × size. Every combination has its row.
    """
    blocks = _ranked(cells)
    blocks = blocks[blocks["rank"] <= top]
    counts = _pooled(blocks).groupby(["protocol", "size", "backbone", "rank"], sort=False).size()
    count = counts.to_dict()
    rows = [
        (protocol, size, backbone, rank, count.get((protocol, size, backbone, rank), 0))
        for protocol, size in _groups(cells)
        for backbone in order_backbones(cells["backbone"])
        for rank in range(1, top + 1)
    ]
    return pd.DataFrame(rows, columns=["protocol", "size", "backbone", "rank", "count"])


def settings_counted(cells: pd.DataFrame) -> pd.DataFrame:
    """Count the settings that `top_ranks` ranks: those that all backbones of the table have.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, size, n_settings, grouped as in `top_ranks`.
    """
    ranked = _ranked(cells)
    winners = _pooled(ranked[ranked["rank"] == 1])
    n_settings = winners.groupby(["protocol", "size"], sort=False).size().to_dict()
    rows = [(*group, n_settings.get(group, 0)) for group in _groups(cells)]
    return pd.DataFrame(rows, columns=["protocol", "size", "n_settings"])


def _ranked(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of all complete settings with their rank, 1 for the best."""
    blocks = complete_blocks(cells.dropna(subset="acc_mean"))
    place = order_backbones(cells["backbone"]).index
    ordered = blocks.assign(
        acc_mean=settle(blocks["acc_mean"]), place=blocks["backbone"].map(place)
    ).sort_values(["acc_mean", "place"], ascending=[False, True])
    return ordered.assign(rank=ordered.groupby(_SETTING).cumcount() + 1)


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
