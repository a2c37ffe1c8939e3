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

COLUMNS = [
    "backbone_a", "backbone_b", "n_datasets", "mean_difference", "effect_size", "favoured",
    "p_value", "threshold", "significant", "p_holm", "significant_holm",
]  # fmt: skip


def pairwise(means: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Compare all pairs of backbones over datasets.

    As the paper does (its Figure 5): two-sided Wilcoxon signed-rank test [1]_ with scipy's
    defaults; significant where p < alpha / number of pairs (Bonferroni). Beside it stand Holm's
    step-down procedure [2]_, which keeps the same error rate and finds at least as much, and the
    matched-pairs rank-biserial correlation [3]_ as the effect size: the signed ranks' sum in favour
    of the first, less that in favour of the second, over the sum of all. It is 1 where the first
    is better on every dataset, -1 where the second is, and 0 where they are even.

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
        Columns `COLUMNS`; every pair once. `mean_difference` is a - b, in percent points;
        `favoured` has the higher mean, and is empty where the means are equal. p is 1 where a pair
        differs on no dataset, and NaN where there is no dataset.

    References
    ----------
    .. [1] Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945.
    .. [2] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6(2), 1979.
    .. [3] Kerby, "The simple difference formula: an approach to teaching nonparametric
       correlation", Comprehensive Psychology 3, 2014.
    """
    complete = means.dropna()
    rows = []
    for first, second in combinations(means.columns, 2):
        differences = settle((complete[first] - complete[second]).to_numpy(dtype=np.float64))
        mean = float(settle(differences.mean())) if len(differences) else float("nan")
        favoured = first if mean > 0 else second if mean < 0 else ""
        effect, p_value = _rank_biserial(differences), _signed_rank_p(differences)
        rows.append((first, second, len(differences), mean, effect, favoured, p_value))
    table = pd.DataFrame(rows, columns=COLUMNS[:7])
    threshold = alpha / max(1, len(table))
    table = table.assign(threshold=threshold, significant=table["p_value"] < threshold)
    if not len(table) or table["p_value"].isna().any():
        return table.assign(p_holm=np.nan, significant_holm=False)
    p_holm = holm(table["p_value"])
    return table.assign(p_holm=p_holm, significant_holm=p_holm <= alpha)


def holm(p_values: pd.Series) -> NDArray[np.float64]:
    """Return p-values corrected for their number, after Holm; NaN stays, and counts for none."""
    corrected: NDArray[np.float64] = p_values.to_numpy(dtype=np.float64, copy=True)
    known = ~np.isnan(corrected)
    if known.any():
        corrected[known] = multipletests(corrected[known], method="holm")[1]
    return corrected


def smallest_p(n_datasets: int) -> float:
    """Return the smallest p that the exact two-sided signed-rank test can give.

    All `n_datasets` then speak for the same backbone, which is one in 2 ** n of all ways to set
    the signs, and so is the opposite. A threshold at or below it cannot be passed.
    """
    return min(1.0, float(np.exp2(1 - n_datasets)))


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
