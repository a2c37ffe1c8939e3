"""DeLong's variance and test against the definition's loops, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medplus.errors import RunError
from medplus.metrics.delong import compare_aucs


def by_definition(target, scores):
    """Structural components as DeLong and colleagues write them, pair by pair."""
    components = []
    for score in scores:
        pairs = np.array(
            [[float(x > y) + 0.5 * float(x == y) for y in score[~target]] for x in score[target]]
        )
        components.append((pairs.mean(axis=1), pairs.mean(axis=0)))
    m, n = int(target.sum()), int((~target).sum())
    s10 = np.cov([a for a, _ in components])
    s01 = np.cov([b for _, b in components])
    return np.array([a.mean() for a, _ in components]), s10 / m + s01 / n


@given(st.integers(0, 10_000), st.sampled_from([3, 10, 1000]))
def test_difference_and_p_follow_from_the_covariance_by_definition(seed, steps):
    rng = np.random.default_rng(seed)
    target = np.arange(25) < rng.integers(2, 24)
    scores = np.round((rng.random((2, 25)) + 0.3 * target) * steps) / steps
    found = compare_aucs(target, *scores)
    aucs, covariance = by_definition(target, scores)
    assert found.difference.value == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    assert aucs[0] == pytest.approx(roc_auc_score(target, scores[0]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance > 1e-9:
        z = (aucs[0] - aucs[1]) / np.sqrt(variance)
        assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=1e-9)


def test_two_equally_good_scores_are_told_apart_one_time_in_twenty():
    rng = np.random.default_rng(0)
    target = np.arange(120) < 50
    n_rejected = 0
    for _ in range(600):
        shared = rng.normal(size=120) + target
        first, second = shared + rng.normal(size=(2, 120))
        n_rejected += compare_aucs(target, first, second).p_value < 0.05
    assert 0.03 <= n_rejected / 600 <= 0.07


def test_scores_of_the_same_order_do_not_differ():
    score = np.linspace(0.1, 0.9, 12)
    found = compare_aucs(np.arange(12) % 3 > 0, score, score**3)
    assert (found.difference.value, found.p_value) == (0.0, 1.0)


def test_exchanging_the_scores_turns_the_sign_and_leaves_p():
    rng = np.random.default_rng(1)
    target, (first, second) = np.arange(40) < 15, rng.random((2, 40))
    one, other = compare_aucs(target, first, second), compare_aucs(target, second, first)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.difference.low == pytest.approx(-other.difference.high)


def test_one_positive_has_no_variance():
    with pytest.raises(RunError, match="1 positives and 3 negatives"):
        compare_aucs(np.arange(4) == 0, np.arange(4.0), np.arange(4.0))


def test_a_perfect_score_against_a_perfectly_wrong_one():
    target = np.arange(10) < 5
    score = np.arange(10.0)
    found = compare_aucs(target, -score, score)
    assert found.difference.value == 1.0
    assert found.p_value == 0.0
