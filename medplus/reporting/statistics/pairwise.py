"""Whether one backbone is better than another over datasets, pair by pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, wilcoxon
from statsmodels.stats.multitest import multipletests

from medplus.reporting.statistics.ties import settle

_ENUMERABLE = 13
"""Up to so many datasets scipy tries all signs where there are ties: 2 ** 13 of them."""

_PAIRWISE = ["backbone_a", "backbone_b", "p_value", "threshold", "significant", "favoured"]
_COMPARISONS = [
    "backbone_a", "backbone_b", "n_datasets", "mean_difference", "effect_size", "p_value",
    "p_holm", "significant_holm",
]  # fmt: skip


def pairwise(means: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Compare all pairs of backbones as the paper does (its Figure 5).

    Two-sided Wilcoxon signed-rank test over datasets [1]_ with scipy's defaults; significant where
    p < alpha / number of pairs (Bonferroni). The favoured one is that with the higher mean.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.reporting.statistics.percentiles.dataset_means`. Datasets that lack a
        backbone are left out.
    alpha : float, default 0.05
        Level of all pairs together.

    Returns
    -------
    pandas.DataFrame
        Columns backbone_a, backbone_b, p_value, threshold, significant, favoured; every pair once.
        p is 1 where a pair differs on no dataset, and NaN where there is no dataset; `favoured` is
        empty where the means are equal.

    References
    ----------
    .. [1] Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945.
    """
    pairs = _differences(means)
    rows = []
    for first, second, differences in pairs:
        p_value, threshold = _signed_rank_p(differences), alpha / len(pairs)
        better = _mean(differences)
        favoured = first if better > 0 else second if better < 0 else ""
        rows.append((first, second, p_value, threshold, p_value < threshold, favoured))
    return pd.DataFrame(rows, columns=_PAIRWISE)


def comparisons(means: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Compare all pairs of backbones with Holm's correction, and say how large differences are.

    The p-values are those of `pairwise`. Holm's step-down procedure [1]_ keeps the same error
    rate as Bonferroni's and finds at least as much. The effect size is the matched-pairs
    rank-biserial correlation [2]_: the signed ranks' sum in favour of the first, less that in
    favour of the second, over the sum of all. It is 1 where the first is better on every dataset,
    -1 where the second is, and 0 where they are even.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.reporting.statistics.percentiles.dataset_means`. Datasets that lack a
        backbone are left out.
    alpha : float, default 0.05
        Level of all pairs together.

    Returns
    -------
    pandas.DataFrame
        Columns backbone_a, backbone_b, n_datasets, mean_difference (a - b, percent points),
        effect_size, p_value, p_holm, significant_holm; every pair once.

    References
    ----------
    .. [1] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6(2), 1979.
    .. [2] Kerby, "The simple difference formula: an approach to teaching nonparametric
       correlation", Comprehensive Psychology 3, 2014.
    """
    rows = [
        (first, second, len(differences), _mean(differences), _rank_biserial(differences),
         _signed_rank_p(differences))
        for first, second, differences in _differences(means)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=_COMPARISONS[:-2])
    if len(table) and table["p_value"].notna().all():
        significant, p_holm, *_ = multipletests(table["p_value"], alpha=alpha, method="holm")
        return table.assign(p_holm=p_holm, significant_holm=significant)
    return table.assign(p_holm=np.nan, significant_holm=False)


def smallest_p(n_datasets: int) -> float:
    """Return the smallest p that the exact two-sided signed-rank test can give.

    All `n_datasets` then speak for the same backbone, which is one in 2 ** n of all ways to set
    the signs, and so is the opposite. A threshold at or below it cannot be passed.
    """
    return min(1.0, float(np.exp2(1 - n_datasets)))


def _differences(means: pd.DataFrame) -> list[tuple[str, str, NDArray[np.float64]]]:
    complete = means.dropna()
    return [
        (first, second, settle((complete[first] - complete[second]).to_numpy(dtype=np.float64)))
        for first, second in combinations(means.columns, 2)
    ]


def _signed_rank_p(differences: NDArray[np.float64]) -> float:
    if not len(differences):
        return float("nan")
    if not differences.any():
        return 1.0  # scipy drops differences of zero; where none is left, it divides by zero
    distinct = np.unique(np.abs(differences[differences != 0]))
    if len(distinct) < len(differences) <= _ENUMERABLE:
        # What `wilcoxon` does itself with ties, but for ranking anew after each change of signs,
        # which takes it a second per pair.
        found = permutation_test(
            (_signed_ranks(differences),), np.sum, permutation_type="samples", vectorized=True
        )
    else:
        found = wilcoxon(differences)
    return float(found.pvalue)


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    if not len(differences):
        return float("nan")
    signed = _signed_ranks(differences)
    return float(signed.sum() / np.abs(signed).sum()) if differences.any() else 0.0


def _signed_ranks(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank the differences by size, without those of zero, and give the ranks their signs."""
    ranks: NDArray[np.float64] = rankdata(np.abs(differences)) - (differences == 0).sum()
    return np.sign(differences) * ranks


def _mean(differences: NDArray[np.float64]) -> float:
    return float(settle(differences.mean())) if len(differences) else float("nan")
