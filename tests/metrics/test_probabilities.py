"""Decision curves, Brier scores, reliability and temperature against scikit-learn and loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from medplus.metrics.calibration import brier, ece, reliability
from medplus.metrics.decision_curve import net_benefit, net_benefit_of_all
from medplus.metrics.temperature import fit_temperature, scale
from medplus.vocabulary import MULTI_LABEL

RNG = np.random.default_rng(0)


@given(st.integers(0, 10_000), st.sampled_from([4, 1000]))
def test_net_benefit_equals_a_loop_over_patients(seed, steps):
    rng = np.random.default_rng(seed)
    target, probability = rng.random(30) < 0.4, np.round(rng.random(30) * steps) / steps
    thresholds = np.array([0.0, 0.05, 0.25, 0.5, 0.9])
    for threshold, found in zip(
        thresholds, net_benefit(target, probability, thresholds), strict=True
    ):
        worth = 0.0
        for is_ill, p in zip(target, probability, strict=True):
            if p >= threshold:
                worth += 1 if is_ill else -threshold / (1 - threshold)
        assert found == pytest.approx(worth / 30)


def test_treating_all_is_a_score_that_calls_everybody():
    target, thresholds = np.arange(20) < 6, np.linspace(0, 0.95, 20)
    everybody = net_benefit(target, np.ones(20), thresholds)
    np.testing.assert_allclose(net_benefit_of_all(0.3, thresholds), everybody, atol=1e-12)


def test_brier_scores_equal_scikit_learns():
    y = RNG.integers(0, 3, 50)
    many = softmax(RNG.normal(size=(50, 3)), axis=1)
    flags, of_labels = RNG.integers(0, 2, (50, 3)), RNG.random((50, 3))
    assert brier(y, many, "multi-class") == pytest.approx(
        brier_score_loss(y, many, labels=[0, 1, 2], scale_by_half=False)
    )
    assert brier(flags[:, 0], of_labels[:, 0], "binary-class") == pytest.approx(
        brier_score_loss(flags[:, 0], of_labels[:, 0])
    )
    each = [brier_score_loss(a, b) for a, b in zip(flags.T, of_labels.T, strict=True)]
    assert brier(flags, of_labels, MULTI_LABEL) == pytest.approx(np.mean(each))


def test_reliability_equals_scikit_learns_curve():
    target, probability = RNG.random(80) < 0.5, RNG.random(80)
    observed, predicted = calibration_curve(target, probability, n_bins=10)
    found = reliability(target, probability)
    np.testing.assert_allclose(found.predicted, predicted)
    np.testing.assert_allclose(found.observed, observed)
    assert found.n.sum() == 80 and found.n_positive.sum() == target.sum()


def test_temperature_undoes_what_made_logits_too_large():
    logits = RNG.normal(size=(4000, 4))
    y = np.array([RNG.choice(4, p=p) for p in softmax(logits, axis=1)])
    too_sure = softmax(3 * logits, axis=1)
    temperature = fit_temperature(y, too_sure, "multi-class")
    assert temperature == pytest.approx(3.0, rel=0.07)
    scaled = scale(too_sure, "multi-class", temperature)
    assert ece(y, scaled, "multi-class") < ece(y, too_sure, "multi-class") / 3


def test_scaling_probabilities_is_scaling_their_logits():
    logits = RNG.normal(size=(20, 4))
    scaled = scale(softmax(logits, axis=1), "multi-class", 2.5)
    np.testing.assert_allclose(scaled, softmax(logits / 2.5, axis=1))
    np.testing.assert_allclose(scale(expit(logits), MULTI_LABEL, 2.5), expit(logits / 2.5))


@pytest.mark.parametrize("task", ["binary-class", "multi-class", MULTI_LABEL])
def test_temperature_has_the_lowest_loss_of_a_grid(task):
    if task == MULTI_LABEL:
        y = RNG.integers(0, 2, (60, 3))
        score = expit(2 * RNG.normal(size=(60, 3)) + y)
    else:
        n_classes = 2 if task == "binary-class" else 3
        y = RNG.integers(0, n_classes, 60)
        score = softmax(2 * RNG.normal(size=(60, n_classes)) + np.eye(n_classes)[y], axis=1)

    def loss(temperature):
        scaled = scale(score, task, temperature)
        if task != MULTI_LABEL:
            return log_loss(y, scaled, labels=np.arange(scaled.shape[1]))
        return np.mean([log_loss(a, b, labels=[0, 1]) for a, b in zip(y.T, scaled.T, strict=True)])

    grid = np.geomspace(0.1, 10, 200)
    assert loss(fit_temperature(y, score, task)) <= min(map(loss, grid)) + 1e-7


def test_scaling_keeps_the_predicted_class_and_takes_votes_of_zero():
    votes = np.array([[0.0, 1.0, 0.0], [0.4, 0.3, 0.3]])
    scaled = scale(votes, "multi-class", 2.0)
    assert (scaled.argmax(axis=1) == votes.argmax(axis=1)).all()
    assert (scaled > 0).all()
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0)
