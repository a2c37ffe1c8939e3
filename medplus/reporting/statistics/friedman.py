"""Friedman's test over datasets, and the critical difference of mean ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, studentized_range

from medplus.analysis.results.ties import settle


@dataclass(frozen=True, eq=False)
class Friedman:
    """Whether backbones differ at all, and which ones by enough.

    Attributes
    ----------
    statistic : float
        Friedman's chi-squared, corrected for ties.
    p_value : float
        Of the hypothesis that all backbones are equally good.
    n_datasets : int
        Datasets that were ranked.
    mean_ranks : pandas.Series of float, by backbone
        Mean over datasets of the rank; 1 is best, equal scores share their mean rank.
    critical_difference : float
        Mean ranks that differ by this much or more differ significantly (Nemenyi).
    cliques : tuple of tuple of str
        The largest groups of backbones, two or more, of which no two differ significantly; within
        and between groups in the order of mean ranks. They overlap. The bars of a
        critical-difference diagram.
    nemenyi : pandas.DataFrame of float, backbones × backbones
        p-values of the Nemenyi test for each pair; 1 on the diagonal.
    """

    statistic: float
    p_value: float
    n_datasets: int
    mean_ranks: pd.Series
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]
    nemenyi: pd.DataFrame


def friedman(means: pd.DataFrame, alpha: float = 0.05) -> Friedman | None:
    r"""Compare all backbones at once, each dataset being one block [1]_.

    On each dataset the backbones are ranked. Friedman's statistic is that of scipy, corrected for
    ties. Two mean ranks differ significantly where they are no closer than

    .. math:: CD = q_\alpha \sqrt{\frac{k (k + 1)}{12 N}}

    with k backbones, N datasets, and q the studentized range of k groups and infinitely many
    degrees of freedom.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.reporting.statistics.percentiles.dataset_means`. Datasets that lack a
        backbone are left out.
    alpha : float, default 0.05
        Level of the critical difference, and so of the cliques.

    Returns
    -------
    Friedman or None
        None for fewer than 3 backbones or 2 datasets.

    References
    ----------
    .. [1] Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
       section 3.2.2.
    """
    blocks = settle(means.dropna())
    n_datasets, n_backbones = blocks.shape
    if n_backbones < 3 or n_datasets < 2:
        return None
    ranks = blocks.rank(axis=1, ascending=False)
    if (blocks.nunique(axis=1) == 1).all():
        # Where all is tied the statistic is 0 / 0; nothing speaks for any difference.
        statistic, p_value = 0.0, 1.0
    else:
        statistic, p_value = friedmanchisquare(*blocks.to_numpy().T)
    unit = np.sqrt(n_backbones * (n_backbones + 1) / (12 * n_datasets))
    difference = studentized_range.isf(alpha, n_backbones, np.inf) * unit
    apart = np.abs(np.subtract.outer(ranks.mean().to_numpy(), ranks.mean().to_numpy()))
    nemenyi = studentized_range.sf(apart / unit, n_backbones, np.inf)
    return Friedman(
        statistic=float(statistic),
        p_value=float(p_value),
        n_datasets=n_datasets,
        mean_ranks=ranks.mean(),
        critical_difference=float(difference),
        cliques=_cliques(ranks.mean(), float(difference)),
        nemenyi=pd.DataFrame(nemenyi, index=means.columns, columns=means.columns),
    )


def _cliques(mean_ranks: pd.Series, critical_difference: float) -> tuple[tuple[str, ...], ...]:
    ordered = mean_ranks.sort_values(kind="stable")
    places = ordered.to_numpy()
    found: list[tuple[str, ...]] = []
    covered = 0
    for start, place in enumerate(places):
        end = int(np.searchsorted(places, place + critical_difference, side="left"))
        # What does not reach further than the group before it is a part of that group.
        if end - start > 1 and end > covered:
            found.append(tuple(ordered.index[start:end]))
            covered = end
    return tuple(found)
