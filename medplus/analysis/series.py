"""What tables and drawings of one thing share: its numbers, in the order that they are shown in."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from medplus.analysis.format import percent
from medplus.analysis.results.cells import order_backbones, order_protocols
from medplus.analysis.table import Mark
from medplus.runs.record import Protocol

SCORE_NAMES = {"acc": "ACC", "auc": "AUC"}

Setting = tuple[str, str | int]
"""Protocol and size, of which either may be ``all``."""


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


def best_and_second(cells: pd.DataFrame, score: str) -> list[Mark]:
    """Return which cells are best, and which second, of their dataset, protocol and size.

    Numbers that are printed alike are equally good, so that several may be best; second best is
    the next lower number. A cell without a rival is not marked.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`; averages may be among them.
    score : str
        A column, as ``acc_mean``.
    """
    printed = cells[score].map(lambda value: float(percent(value) or "nan"))
    groups = printed.groupby([cells[key] for key in ("dataset", "protocol", "size")])
    places = groups.rank(method="dense", ascending=False)
    rivals = groups.transform("count") > 1
    marks: dict[float, Mark] = {1: "best", 2: "second"}
    return [
        marks.get(place, "") if rival else "" for place, rival in zip(places, rivals, strict=True)
    ]


def ranks_by_setting(ranking: pd.DataFrame) -> dict[Setting, tuple[int, pd.DataFrame]]:
    """Return the settings that are counted, and the counts of backbones × ranks.

    Parameters
    ----------
    ranking : pandas.DataFrame
        See `medplus.reporting.statistics.ranking.top_ranks`.
    """
    names = order_backbones(ranking["backbone"])
    groups = ranking.groupby(["protocol", "size"], sort=False)
    return {
        group: (
            int(rows["n_settings"].iloc[0]),
            rows.pivot(index="backbone", columns="rank", values="count").reindex(names),
        )
        for group, rows in groups
    }


def gains_by_step(
    gains: pd.DataFrame,
) -> dict[tuple[str, str, tuple[int, int]], tuple[int, int]]:
    """Return datasets that gain, and those that have both sizes, by protocol, backbone and step."""
    return {
        (row.protocol, row.backbone, (row.from_size, row.to_size)): (row.improved, row.n_datasets)
        for row in gains.itertuples()
    }
