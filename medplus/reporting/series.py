"""What tables and drawings of one thing share: its numbers, in the order that they are shown in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medplus.reporting.cells import order_backbones, order_protocols
from medplus.reporting.format import percent
from medplus.reporting.table import Mark
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
        See `medplus.reporting.cells`; averages may be among them.
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


@dataclass(frozen=True)
class Box:
    """The numbers of a box plot over datasets, as Tukey draws it.

    Attributes
    ----------
    values : pandas.Series of float, by dataset
        In ascending order.
    q1, median, q3 : float
        Quartiles by numpy's linear rule.
    low, high : float
        The last values within 1.5 times the box's length.
    """

    values: pd.Series
    q1: float
    median: float
    q3: float
    low: float
    high: float

    @property
    def outliers(self) -> NDArray[np.float64]:
        """The values beyond the whiskers."""
        inside = self.values.between(self.low, self.high)
        beyond: NDArray[np.float64] = self.values[~inside].to_numpy()
        return beyond


def boxes_of(cells: pd.DataFrame) -> Mapping[tuple[str, str, int], Box]:
    """Return the boxes of ACC by protocol, backbone and size; none where there is no score."""
    scored = cells.dropna(subset="acc_mean")
    boxes = {}
    for key, rows in scored.groupby(["protocol", "backbone", "size"]):
        values = rows.set_index("dataset")["acc_mean"].astype(float).sort_values()
        q1, median, q3 = np.percentile(values, [25, 50, 75])
        reach = 1.5 * (q3 - q1)
        inside = values[values.between(q1 - reach, q3 + reach)]
        boxes[key] = Box(values, q1, median, q3, inside.min(), inside.max())
    return boxes
