"""Operating points against scikit-learn, statsmodels and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from statsmodels.stats.proportion import proportion_confint

from medplus.metrics.operating_points import (
    operating_point,
    predictive_values,
    share,
    threshold_at,
)

flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(flags)
def test_counts_and_rates_equal_scikit_learns(pairs):
    target, called = np.array(pairs).T
    point = operating_point(target, called)
    tn, fp, fn, tp = confusion_matrix(target, called, labels=[False, True]).ravel()
    assert (point.tp, point.fp, point.tn, point.fn) == (tp, fp, tn, fn)
    nan = {"zero_division": np.nan}
    expected = {
        "sensitivity": recall_score(target, called, **nan),
        "specificity": recall_score(~target, ~called, **nan),
        "ppv": precision_score(target, called, **nan),
        "npv": precision_score(~target, ~called, **nan),
    }
    for name, value in expected.items():
        assert getattr(point, name).value == pytest.approx(value, nan_ok=True)


def test_intervals_at_the_samples_own_prevalence_are_wilsons():
    target = np.repeat([True, True, False, False], [28, 12, 15, 25])
    called = np.repeat([True, False, True, False], [28, 12, 15, 25])
    point = operating_point(target, called)
    assert point.sensitivity[1:] == pytest.approx(proportion_confint(28, 40, method="wilson"))
    assert point.npv[1:] == pytest.approx(proportion_confint(25, 37, method="wilson"))


def test_images_of_one_patient_tell_less_than_as_many_patients():
    target = np.repeat([True, False], 40)
    called = np.repeat(np.arange(20) % 2 == 0, 4)
    alone = operating_point(target, called)
    together = operating_point(target, called, groups=np.repeat(np.arange(20), 4))
    assert together.sensitivity.value == alone.sensitivity.value
    assert together.sensitivity.low < alone.sensitivity.low - 0.1


def at_prevalence(tp, fp, tn, fn, prevalence):
    target = np.repeat([True, False, False, True], [tp, fp, tn, fn])
    called = np.repeat([True, True, False, False], [tp, fp, tn, fn])
    point = operating_point(target, called, prevalence)
    return point.ppv, point.npv


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_predictive_values_at_the_own_prevalence_are_the_observed_shares(tp, fp, tn, fn):
    prevalence = (tp + fn) / (tp + fp + tn + fn)
    ppv, npv = at_prevalence(tp, fp, tn, fn, prevalence)
    assert ppv.value == pytest.approx(tp / (tp + fp))
    assert npv.value == pytest.approx(tn / (tn + fn))


def test_predictive_values_follow_bayes_at_another_prevalence():
    ppv, npv = at_prevalence(tp=90, fp=20, tn=80, fn=10, prevalence=0.01)
    assert ppv.value == pytest.approx(0.9 * 0.01 / (0.9 * 0.01 + 0.2 * 0.99))
    assert npv.value == pytest.approx(0.8 * 0.99 / (0.8 * 0.99 + 0.1 * 0.01))


@pytest.mark.parametrize("sensitivity", [0.8, 0.99])
@pytest.mark.parametrize("specificity", [0.9, 0.99])
def test_intervals_at_another_prevalence_cover_the_true_value(sensitivity, specificity):
    n1, n0, prevalence = 20, 40, 0.02
    hit, spared = sensitivity * prevalence, specificity * (1 - prevalence)
    truths = hit / (hit + 1 - prevalence - spared), spared / (spared + prevalence - hit)
    covered, defined = np.zeros(2), np.zeros(2)
    found_positive = [share(np.arange(n1) < tp) for tp in range(n1 + 1)]
    found_negative = [share(np.arange(n0) < tn) for tn in range(n0 + 1)]
    # Every outcome that is at all probable, not a sample of them.
    for tp, tn in itertools.product(range(n1 + 1), range(n0 + 1)):
        chance = binom.pmf(tp, n1, sensitivity) * binom.pmf(tn, n0, specificity)
        if chance < 1e-7:
            continue
        values = predictive_values(found_positive[tp], found_negative[tn], prevalence)
        for i, found in enumerate(values):
            if not math.isnan(found.value):
                defined[i] += chance
                covered[i] += chance * (found.low <= truths[i] <= found.high)
    assert (covered / defined >= 0.92).all()


@pytest.mark.parametrize("counts", [(10, 0, 20, 5), (10, 3, 20, 0), (10, 0, 20, 0)])
def test_without_a_mistake_the_interval_still_leaves_room_for_one(counts):
    ppv, npv = at_prevalence(*counts, prevalence=0.1)
    for estimate in (ppv, npv):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.high - estimate.low > 0.001


def test_a_class_without_samples_has_no_rates():
    point = operating_point(np.zeros(4, dtype=bool), np.array([True, False, False, False]), 0.1)
    assert math.isnan(point.sensitivity.value)
    assert math.isnan(point.ppv.value)
    assert point.to_dict()["sensitivity"] is None


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=40).filter(
        lambda pairs: len({target for target, _ in pairs}) == 2
    ),
    st.sampled_from(["sensitivity", "specificity"]),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_threshold_is_the_best_of_all_that_keep_the_rate(pairs, rate, least):
    target = np.array([one for one, _ in pairs])
    score = np.array([one / 10 for _, one in pairs])
    other = {"sensitivity": "specificity", "specificity": "sensitivity"}[rate]

    def rates(threshold):
        point = operating_point(target, score >= threshold)
        return getattr(point, rate).value, getattr(point, other).value

    possible = [rates(one) for one in (*score, math.inf)]
    kept, gained = rates(threshold_at(target, score, rate, least))
    assert kept >= least
    assert gained == max(b for a, b in possible if a >= least)
