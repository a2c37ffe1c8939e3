from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from medplus.analysis.friedman import friedman
from medplus.analysis.results.averages import dataset_means

pytestmark = pytest.mark.filterwarnings("error")

DEMSAR = pd.DataFrame(
    {
        "C4.5": [4, 1, 4, 4, 4, 1, 3, 2.5, 4, 2.5, 4, 3, 4, 3],
        "C4.5+m": [3, 2, 1, 1, 2, 2.5, 2, 2.5, 3, 2.5, 2.5, 2, 1, 1],
        "C4.5+cf": [2, 3, 2, 3, 3, 4, 4, 4, 2, 2.5, 1, 4, 2, 4],
        "C4.5+m+cf": [1, 4, 3, 2, 1, 2.5, 1, 1, 1, 2.5, 2.5, 1, 3, 2],
    }
)
"""Ranks of four classifiers on 14 datasets: Demšar 2006, table 6."""


def ranks_by_hand(row):
    return [sum(o > s for o in row) + (sum(o == s for o in row) + 1) / 2 for s in row]


def friedman_by_hand(scores):
    """Return mean ranks, the statistic without correction for ties, and the correction."""
    n, k = scores.shape
    ranks = [ranks_by_hand(row) for row in scores.to_numpy().tolist()]
    mean = [sum(column) / n for column in zip(*ranks, strict=True)]
    statistic = 12 * n / (k * (k + 1)) * (sum(r * r for r in mean) - k * (k + 1) ** 2 / 4)
    groups = [row.count(score) for row in scores.to_numpy().tolist() for score in set(row)]
    return mean, statistic, 1 - sum(t**3 - t for t in groups) / (n * k * (k * k - 1))


def cliques_by_hand(mean_ranks, critical_difference):
    """Take every group of backbones in which all pairs are close, and keep the largest."""
    close = [
        set(group)
        for size in range(2, len(mean_ranks) + 1)
        for group in combinations(mean_ranks.index, size)
        if np.ptp(mean_ranks[list(group)].to_numpy()) < critical_difference
    ]
    return [group for group in close if not any(group < other for other in close)]


def test_published_example():
    # Demšar: mean ranks 3.143, 2.000, 2.893, 1.964; chi-squared 9.28; CD 1.25 at 0.05.
    found = friedman(-DEMSAR)
    assert found is not None
    assert list(found.mean_ranks.round(3)) == [3.143, 2.0, 2.893, 1.964]
    # He does not correct for ties: in 3 rows two are tied, in one all four.
    correction = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * 4 * (4**2 - 1))
    assert round(found.statistic * correction, 2) == 9.28
    assert round(found.critical_difference, 2) == 1.25
    assert found.n_datasets == 14
    assert found.cliques == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    # At 0.10 "CD is 1.12": C4.5 is worse than the first two; C4.5+cf belongs to both groups.
    found = friedman(-DEMSAR, alpha=0.10)
    assert found is not None
    assert round(found.critical_difference, 2) == 1.12
    assert found.cliques == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))


@pytest.mark.parametrize(
    ("n_backbones", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)]
)
def test_critical_values_are_those_of_demsars_table_5(n_backbones, q):
    scores = pd.DataFrame(np.random.default_rng(0).random((6, n_backbones)))
    found = friedman(scores)
    assert found is not None
    scale = np.sqrt(n_backbones * (n_backbones + 1) / (6 * 6))
    assert round(found.critical_difference / scale, 3) == pytest.approx(q, abs=0.0011)


def test_equal_scores_speak_for_no_difference():
    found = friedman(pd.DataFrame(50.0, index=range(4), columns=list("abc")))
    assert found is not None
    assert (found.statistic, found.p_value) == (0.0, 1.0)
    assert list(found.mean_ranks) == [2.0, 2.0, 2.0]
    assert found.cliques == (("a", "b", "c"),)
    assert (found.nemenyi == 1).all(axis=None)


def test_rounding_errors_are_ties():
    found = friedman(pd.DataFrame([[0.3, 0.1 + 0.2, 0.1], [0.3, 0.1 + 0.2, 0.1]]))
    assert found is not None
    assert list(found.mean_ranks) == [1.5, 1.5, 3.0]


def test_too_little_to_compare(baseline):
    means = dataset_means(baseline)
    assert friedman(means.iloc[:, :2]) is None
    assert friedman(means.iloc[:1]) is None
    assert friedman(means.iloc[:0]) is None
    assert friedman(means.iloc[:2, :3]) is not None


def test_dataset_that_lacks_a_backbone_is_left_out(baseline):
    means = dataset_means(baseline)
    holed = means.copy()
    holed.iloc[2, 4] = np.nan
    found, expected = friedman(holed), friedman(means.drop(means.index[2]))
    assert found is not None
    assert expected is not None
    assert found.n_datasets == 11
    assert found.statistic == expected.statistic


@settings(max_examples=20)
@given(
    n=st.integers(2, 8), k=st.integers(3, 6), levels=st.sampled_from([2, 4, 100]),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_any_scores_equal_a_plain_loop(n, k, levels, seed):
    rng = np.random.default_rng(seed)
    # A trend over backbones, so that some examples have differences worth a clique.
    scores = rng.integers(0, levels, (n, k)) + 60.0 + np.arange(k) * rng.integers(0, levels)
    means = pd.DataFrame(scores, columns=[f"b{i}" for i in range(k)])
    found = friedman(means)
    assert found is not None
    mean_ranks, statistic, correction = friedman_by_hand(means)
    assert list(found.mean_ranks) == pytest.approx(mean_ranks)
    assert found.statistic == pytest.approx(statistic / correction if correction else 0.0)
    assert found.p_value == pytest.approx(chi2.sf(found.statistic, k - 1))
    expected = cliques_by_hand(found.mean_ranks, found.critical_difference)
    assert sorted(map(sorted, found.cliques)) == sorted(map(sorted, expected))
    for a, b in combinations(means.columns, 2):
        together = any({a, b} <= set(group) for group in found.cliques)
        assert together == (found.nemenyi.loc[a, b] > 0.05)
        assert found.nemenyi.loc[a, b] == found.nemenyi.loc[b, a]
    again = friedman(means.sample(frac=1, random_state=5))
    assert again is not None
    assert again.cliques == found.cliques
    assert again.statistic == pytest.approx(found.statistic)
