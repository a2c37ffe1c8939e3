"""Intervals of accuracy and AUC against statsmodels, explicit DeLong, and what they must not do."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from medplus import metrics
from medplus.vocabulary import MULTI_LABEL


def binary(n, n_positive, shift, seed=0):
    rng = np.random.default_rng(seed)
    y_true = (np.arange(n) < n_positive).astype(int)
    return y_true, norm.cdf(rng.normal(size=n) + shift * (y_true - 0.5))


def auc_interval(y_true, y_score, task="binary-class", groups=None):
    return metrics.auc_interval(metrics.check(y_true, y_score, task), groups)


def delong(y_true, y_score):
    """AUC and its variance, from all pairs of a positive and a negative."""
    positives, negatives = y_score[y_true == 1][:, None], y_score[y_true == 0]
    right = (positives > negatives) + 0.5 * (positives == negatives)
    by_positive, by_negative = right.mean(axis=1), right.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(
        by_negative
    )
    return right.mean(), variance


@pytest.mark.parametrize("hits", [4, 10, 30, 46, 50])
def test_accuracy_has_wilsons_interval(hits):
    found = metrics.proportion_interval(np.arange(50)[:, None] < hits)
    assert found == pytest.approx(proportion_confint(hits, 50, method="wilson"), abs=1e-12)


@pytest.mark.parametrize("errors", [1, 2, 3])
def test_few_errors_widen_wilsons_interval_at_its_end_only(errors):
    low, high = metrics.proportion_interval(np.arange(50)[:, None] >= errors)
    wilson = proportion_confint(50 - errors, 50, method="wilson")
    assert low == pytest.approx(wilson[0], abs=1e-12)
    assert wilson[1] < high < 1


def test_everything_right_is_not_certain():
    y_true, _ = binary(50, 5, 0)
    result = metrics.score(y_true, y_true.astype(float), "binary-class")
    assert (result.acc_ci95[1], result.auc_ci95[1]) == (1, 1)
    assert result.acc_ci95[0] == pytest.approx(0.929, abs=0.001)
    assert 0.7 < result.auc_ci95[0] < 0.9


def test_copies_of_an_image_in_a_group_tell_nothing_new():
    hits = np.random.default_rng(0).random((60, 1)) < 0.8
    alone = metrics.proportion_interval(hits, np.arange(60))
    copied = metrics.proportion_interval(hits.repeat(5, axis=0), np.arange(300) // 5)
    assert copied == pytest.approx(alone, abs=0.01)
    y_true, y_score = binary(120, 40, 1.5)
    alone = auc_interval(y_true, y_score, groups=np.arange(120))
    copied = auc_interval(y_true.repeat(4), y_score.repeat(4), groups=np.arange(480) // 4)
    assert copied == pytest.approx(alone, abs=0.01)


def test_labels_of_an_image_that_are_right_or_wrong_together_count_once():
    hits = np.random.default_rng(0).random((200, 1)) < 0.8
    together = metrics.proportion_interval(hits.repeat(14, axis=1))
    assert together == pytest.approx(metrics.proportion_interval(hits), abs=0.003)
    apart = metrics.proportion_interval(np.random.default_rng(1).random((200, 14)) < 0.8)
    assert np.ptp(apart) < np.ptp(together) / 3


@pytest.mark.parametrize(("shift", "n_positive"), [(0.5, 300), (1.5, 700), (3.0, 500)])
def test_interval_of_a_large_test_set_is_delongs_on_the_logit(shift, n_positive):
    y_true, y_score = binary(1500, n_positive, shift)
    auc, variance = delong(y_true, y_score)
    logit, half = np.log(auc / (1 - auc)), 1.96 * variance**0.5 / (auc * (1 - auc))
    expected = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    assert auc_interval(y_true, y_score) == pytest.approx(tuple(expected), abs=0.002)


def test_two_classes_as_multi_class_are_the_binary_task():
    y_true, y_score = binary(300, 100, 1.0)
    both = np.column_stack([1 - y_score, y_score])
    expected = auc_interval(y_true, y_score)
    assert auc_interval(y_true, both, "multi-class") == pytest.approx(expected, abs=0.002)


def test_macro_auc_varies_as_resampled_test_sets_do():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (400, 5))
    common = rng.normal(size=(400, 1))
    y_score = norm.cdf(truth + common + rng.normal(size=(400, 5)))
    drawn = metrics.replicates(metrics.check(truth, y_score, MULTI_LABEL), 2000)
    low, high = auc_interval(truth, y_score, MULTI_LABEL)
    assert (high - low) / (2 * 1.96) == pytest.approx(drawn.auc.std(), rel=0.06)


def test_a_class_of_one_image_has_a_wide_interval():
    y_true, y_score = binary(60, 1, 0.0)
    low, high = auc_interval(y_true, y_score)
    assert low < roc_auc_score(y_true, y_score) < high
    assert high - low > 0.3


def test_placements_average_to_the_auc_on_either_side():
    y_true, y_score = binary(80, 30, 1.0)
    y_score = np.round(y_score, 1)
    place = metrics.ranking.placements(y_true == 1, y_score)
    expected = roc_auc_score(y_true, y_score)
    assert place[y_true == 1].mean() == pytest.approx(expected)
    assert place[y_true == 0].mean() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n_positive", "groups", "says"),
    [(5, None, None), (4, None, "class 1 has 4 images on one side"), (76, None, "class 1 has 4"),
     (40, np.arange(80) // 20, "class 1 has 2 groups on one side")],
)  # fmt: skip
def test_too_few_on_one_side_is_named(n_positive, groups, says):
    said = metrics.known_to_undercover(
        metrics.check(*binary(80, n_positive, 1.0), "binary-class"), groups
    )
    assert (said is None) if says is None else said.startswith(says)


def test_the_class_of_too_few_is_called_by_its_name():
    cases = metrics.check(*binary(80, 4, 1.0), "binary-class")
    said = metrics.known_to_undercover(cases, classes=("benign", "malignant"))
    assert said.startswith("class 'malignant' has 4 images")
