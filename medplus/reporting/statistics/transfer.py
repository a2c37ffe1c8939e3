"""How well a cheap protocol predicts which backbone an expensive one would favour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medplus.analysis.drawing.palette import setting_label
from medplus.analysis.results.cells import order_backbones
from medplus.analysis.results.ties import settle
from medplus.reporting.statistics.intervals import mean_interval

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
        95 % bootstrap interval of `rho` over datasets; NaN for fewer than 3.
    regret : float
        Percent points of target ACC that are lost by taking, on each dataset, the backbone that
        is best at the cheap setting; averaged over datasets.
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

    @property
    def label(self) -> str:
        """In words, which setting is to predict which."""
        return f"{setting_label(*self.cheap)} → {setting_label(*self.target)}"

    @property
    def means(self) -> pd.DataFrame:
        """Mean `cheap_rank` and `target_rank` over datasets, by backbone."""
        return self.points.groupby("backbone")[["cheap_rank", "target_rank"]].mean()


def transfer(
    cells: pd.DataFrame, cheap: Setting, target: Setting, n_resamples: int = 2000, seed: int = 0
) -> Transfer | None:
    """Compare the backbones' ranks at two settings, dataset by dataset.

    Only backbones that have both settings on some dataset are compared, and only on the datasets
    where all of them have both. Correlations are averaged over datasets, rather than taken of all
    points at once, since ranks of different datasets are not to be compared; datasets are resampled
    as wholes.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.
    cheap, target : tuple of (str, int)
        Protocol and size.
    n_resamples : int, default 2000
        Resamples of the datasets.
    seed : int, default 0
        Seed of the draws.

    Returns
    -------
    Transfer or None
        None where fewer than two backbones, or no dataset, can be compared. Of backbones that are
        equally good at the cheap setting, the regret is that of the one that comes first in
        `order_backbones`.
    """
    guess, truth = _shared(_scores(cells, cheap), _scores(cells, target))
    n_datasets, n_backbones = truth.shape
    if n_backbones < 2 or not n_datasets:
        return None
    cheap_ranks = guess.rank(axis=1, ascending=False)
    target_ranks = truth.rank(axis=1, ascending=False)
    rhos = _correlations(cheap_ranks.to_numpy(), target_ranks.to_numpy())
    (low,), (high,) = mean_interval(rhos[:, None], n_resamples, seed)
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
    )


def default_transfers(cells: pd.DataFrame) -> list[Transfer]:
    """Set cheap looks at the backbones against the result that is wanted.

    k-NN and probe, each at its smallest size, are set against fine-tuning at its largest; in a
    table without fine-tuning, k-NN at its smallest size against the probe at its largest.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

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


def _scores(cells: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """Return the ACC of datasets × backbones at a setting."""
    protocol, size = setting
    rows = cells[(cells["protocol"] == protocol) & (cells["size"] == size)]
    return settle(rows.pivot(index="dataset", columns="backbone", values="acc_mean"))


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
