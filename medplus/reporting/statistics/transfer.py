"""How well a cheap protocol predicts which backbone an expensive one would favour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medplus.reporting.cells import order_backbones
from medplus.reporting.palette import setting_label
from medplus.reporting.statistics.intervals import mean_interval
from medplus.reporting.statistics.ties import settle

Setting = tuple[str, int]
"""Protocol and size."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """How the ranks at one setting agree with those at another.

    Attributes
    ----------
    cheap, target : tuple of (str, int)
        Protocol and size.
    points : pandas.DataFrame
        Columns dataset, backbone, cheap_rank, target_rank; ranks within the dataset, 1 is best,
        equal scores share their mean rank.
    n_datasets, n_backbones : int
        What `points` are over.
    rho : float
        Spearman's rank correlation, averaged over datasets. Datasets on which all backbones score
        the same at either setting have none and are left out; NaN where that leaves none.
    low, high : float
        Student's 95 % interval of `rho` over datasets; NaN for fewer than 3.
    regret, random_regret : float
        Percent points of target ACC that are lost by taking, on each dataset, the backbone that
        is best at the cheap setting, and those by taking any; averaged over datasets.
    ranked_on : {"val", "test"}
        What the cheap setting was scored on. Scores on the test images that the target is scored
        on too agree by these images alone: of ten equal backbones with a rho of 0.33 on average.
    """

    cheap: Setting
    target: Setting
    points: pd.DataFrame
    n_datasets: int
    n_backbones: int
    rho: float
    low: float
    high: float
    regret: float
    random_regret: float
    ranked_on: Literal["val", "test"]

    @property
    def predicts(self) -> bool:
        """Whether the interval of `rho`, where there is one, lies above 0."""
        return bool(self.rho > 0) and not self.low <= 0

    @property
    def label(self) -> str:
        """In words, which setting is to predict which."""
        return f"{setting_label(*self.cheap)} → {setting_label(*self.target)}"

    @property
    def means(self) -> pd.DataFrame:
        """Mean `cheap_rank` and `target_rank` over datasets, by backbone."""
        return self.points.groupby("backbone")[["cheap_rank", "target_rank"]].mean()


def transfer(cells: pd.DataFrame, cheap: Setting, target: Setting) -> Transfer | None:
    """Compare the backbones' ranks at two settings, dataset by dataset.

    Only backbones that have both settings on some dataset are compared, and only on the datasets
    where all of them have both. Correlations are averaged over datasets, rather than taken of all
    points at once, since ranks of different datasets are not to be compared. The cheap setting is
    ranked by its scores on val, if all that are compared have them: on test, both settings would
    owe to the same images.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`. `val_mean` is NaN where there is none; the paper printed
        none.
    cheap, target : tuple of (str, int)
        Protocol and size.

    Returns
    -------
    Transfer or None
        None where fewer than two backbones, or no dataset, can be compared. Of backbones that are
        equally good at the cheap setting, the regret is that of the one that comes first in
        `order_backbones`.
    """
    wanted = _scores(cells, target)
    guess, truth = _shared(_scores(cells, cheap), wanted)
    ranked_on: Literal["val", "test"] = "test"
    if "val_mean" in cells.columns:
        on_val = _shared(_scores(cells, cheap, "val_mean"), wanted)
        if on_val[0].size and on_val[0].shape == guess.shape:
            (guess, truth), ranked_on = on_val, "val"
    n_datasets, n_backbones = truth.shape
    if n_backbones < 2 or not n_datasets:
        return None
    cheap_ranks = guess.rank(axis=1, ascending=False)
    target_ranks = truth.rank(axis=1, ascending=False)
    rhos = _correlations(cheap_ranks.to_numpy(), target_ranks.to_numpy())
    (low,), (high,) = mean_interval(rhos[:, None])
    low, high = max(low, -1.0), min(high, 1.0)
    taken = truth.to_numpy()[np.arange(n_datasets), guess.to_numpy().argmax(axis=1)]
    points = pd.DataFrame(
        {"cheap_rank": cheap_ranks.stack(), "target_rank": target_ranks.stack()}
    ).reset_index()
    return Transfer(
        cheap=cheap,
        target=target,
        points=points,
        n_datasets=n_datasets,
        n_backbones=n_backbones,
        rho=float(rhos.mean()) if len(rhos) else float("nan"),
        low=float(low),
        high=float(high),
        regret=float((truth.max(axis=1).to_numpy() - taken).mean()),
        random_regret=float((truth.max(axis=1) - truth.mean(axis=1)).mean()),
        ranked_on=ranked_on,
    )


def default_transfers(cells: pd.DataFrame) -> list[Transfer]:
    """Set cheap looks at the backbones against the result that is wanted.

    k-NN and probe, each at its smallest size, are set against fine-tuning at its largest; in a
    table without fine-tuning, k-NN at its smallest size against the probe at its largest.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.

    Returns
    -------
    list of Transfer
        Those that can be computed.
    """
    sizes = cells.groupby("protocol")["size"]
    smallest, largest = sizes.min().to_dict(), sizes.max().to_dict()
    target = "finetune" if "finetune" in largest else "probe"
    if target not in largest:
        return []
    cheap = [name for name in ("knn", "probe") if name in smallest and name != target]
    found = (
        transfer(cells, (name, int(smallest[name])), (target, int(largest[target])))
        for name in cheap
    )
    return [one for one in found if one is not None]


def _scores(cells: pd.DataFrame, setting: Setting, column: str = "acc_mean") -> pd.DataFrame:
    """Return a score of datasets × backbones at a setting."""
    protocol, size = setting
    rows = cells[(cells["protocol"] == protocol) & (cells["size"] == size)]
    return settle(rows.pivot(index="dataset", columns="backbone", values=column))


def _shared(guess: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut two tables to the backbones that have both, and the datasets where all of them do."""
    datasets = guess.index.intersection(truth.index).sort_values()
    backbones = order_backbones(guess.columns.intersection(truth.columns))
    guess, truth = (scores.reindex(datasets, columns=backbones) for scores in (guess, truth))
    both = guess.notna() & truth.notna()
    both = both.loc[:, both.any()]
    complete, compared = both.index[both.all(axis=1)], both.columns
    return guess.loc[complete, compared], truth.loc[complete, compared]


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's rho of each row that has one."""
    varies = (np.ptp(first, axis=1) > 0) & (np.ptp(second, axis=1) > 0)
    pairs = zip(first[varies], second[varies], strict=True)
    return np.array([spearmanr(*pair).statistic for pair in pairs], dtype=np.float64)
