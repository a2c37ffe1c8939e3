"""The shape that the paper's numbers and yours share: one row per cell of the benchmark.

A cell is one dataset, protocol, backbone and size; its scores are means over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from medplus.backbones.catalog import PAPER, PIXELS
from medplus.run.record import Protocol
from medplus.spec import NONE

PROTOCOLS: tuple[Protocol, ...] = ("finetune", "probe", "knn")
"""In the paper's order."""

KEYS = ["dataset", "protocol", "backbone", "size"]
SCORES = ["acc_mean", "acc_std", "auc_mean", "auc_std"]
COLUMNS = [*KEYS, *SCORES, "n_seeds"]
"""Columns of a table of cells. Scores are in percent, NaN where there is none; `*_std` is the
standard deviation over seeds. Tables of runs have further columns
(`medplus.analysis.results.runs`)."""

AVERAGE = "average"
"""The dataset's name in rows that are means over datasets."""

ALL = "all"
"""A protocol's or size's name in rows that pool all of them."""


APART = " · "
"""Stands between a backbone and what tells it from others of the same report."""

RANDOM = "random weights"


def network_of(backbone: str) -> str:
    """Return the backbone's own name, without what tells it from others of the same report."""
    return backbone.partition(APART)[0]


def order_backbones(names: Iterable[str]) -> list[str]:
    """Return backbones in the paper's order, all others by name, random ones, raw pixels last."""
    known = list(PAPER)

    def place(name: str) -> tuple[int, int, str]:
        network, _, apart = name.partition(APART)
        kind = 3 if network == PIXELS else 2 if RANDOM in apart else 0 if network in PAPER else 1
        return kind, known.index(network) if network in PAPER else 0, name

    return sorted(set(names), key=place)


def order_protocols(names: Iterable[str]) -> list[Protocol]:
    """Return protocols in the paper's order."""
    found = set(names)
    return [name for name in PROTOCOLS if name in found]


@dataclass(frozen=True)
class Extent:
    """The protocols, backbones and sizes of a table, each in their order."""

    protocols: list[Protocol]
    backbones: list[str]
    sizes: list[int]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Extent:
        """Return the extent of a frame with these three columns."""
        backbones = order_backbones(frame["backbone"])
        return cls(order_protocols(frame["protocol"]), backbones, sorted(set(frame["size"])))


def sort_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells in the order of dataset, protocol, backbone, size."""
    backbones = order_backbones(cells["backbone"])
    keys = {
        "dataset": cells["dataset"],
        "protocol": cells["protocol"].map(PROTOCOLS.index),
        "backbone": cells["backbone"].map(backbones.index),
        "size": cells["size"],
    }
    order = pd.DataFrame(keys).sort_values(KEYS).index
    return cells.loc[order].reset_index(drop=True)


def complete_blocks(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells whose dataset, protocol and size all backbones of the table have.

    Ranks and paired tests compare backbones under equal conditions, so a setting that one of them
    lacks cannot count.
    """
    n_backbones = cells["backbone"].nunique()
    present = cells.groupby(["dataset", "protocol", "size"])["backbone"].transform("nunique")
    return cells[present == n_backbones]


def comparable(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leave out backbones that would cost a comparison more than they bring to it.

    A setting counts only if all backbones have it, so that one with few runs, or without a whole
    protocol, would empty rankings and tests. As long as more cells can be compared without some
    backbone than with it, the one whose absence brings most is left out; two always remain. Random
    networks are no answer, and take no part beside trained ones.

    Parameters
    ----------
    cells : pandas.DataFrame
        With a column `weights` where there are any.

    Returns
    -------
    cells : pandas.DataFrame
    left_out : list of str
        The backbones, without the random ones.
    """
    if "weights" in cells:
        random = (cells["weights"] == NONE) & (cells["network"] != PIXELS)
        trained = ~random & (cells["network"] != PIXELS)
        cells = cells[~random] if trained.any() else cells
    left_out: list[str] = []
    names = order_backbones(cells["backbone"])
    while len(names) > 2:
        without = {name: cells[cells["backbone"] != name] for name in names}
        counts = {name: len(complete_blocks(rest)) for name, rest in without.items()}
        worst = max(names, key=lambda name: counts[name])
        if counts[worst] <= len(complete_blocks(cells)):
            break
        cells = without[worst]
        names.remove(worst)
        left_out.append(worst)
    return cells, order_backbones(left_out)
