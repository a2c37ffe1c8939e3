"""Intervals and losses of balanced accuracy, against resampling and plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medplus.metrics import (
    balanced_accuracy,
    balanced_accuracy_interval,
    balanced_loss,
    check,
    proportion_interval,
)


def scores_of(hits, true, n_classes):
    """Return scores that are right where there is a hit."""
    said = np.where(hits, true, (true + 1) % n_classes)
    return np.eye(n_classes)[said]


def recalls(true, guessed):
    return np.bincount(true, true == guessed) / np.bincount(true)


def test_of_one_class_it_is_wilsons():
    true, hits = np.zeros(40, int), np.arange(40) < 31
    cases = check(true, scores_of(hits, true, 3), "multi-class")
    assert balanced_accuracy_interval(cases) == pytest.approx(proportion_interval(hits[:, None]))


@pytest.mark.parametrize("task", ["multi-class", "multi-label, binary-class"])
def test_interval_holds_the_truth_about_as_often_as_it_says(task):
    rng = np.random.default_rng(0)
    recalls, held, n_trials = np.array([0.95, 0.7, 0.4]), 0, 200
    for _ in range(n_trials):
        if task == "multi-class":
            true = rng.choice(3, 150, p=[0.6, 0.3, 0.1])
            scores = scores_of(rng.random(150) < recalls[true], true, 3)
        else:  # three labels, each with both recalls alike
            true = rng.integers(0, 2, (150, 3))
            scores = np.where(rng.random((150, 3)) < recalls, true, 1 - true).astype(float)
        low, high = balanced_accuracy_interval(check(true, scores, task))
        held += low <= recalls.mean() <= high
    assert held / n_trials >= 0.92
    if task == "multi-class":
        assert held / n_trials <= 0.99


def test_loss_is_scikit_learns_and_its_error_that_of_resampling():
    rng = np.random.default_rng(1)
    true = np.sort(rng.choice(3, 300, p=[0.5, 0.3, 0.2]))
    before = scores_of(rng.random(300) < 0.9, true, 3)
    after = np.where((rng.random(300) < 0.7)[:, None], before, scores_of(np.zeros(300), true, 3))
    loss, error = balanced_loss(
        check(true, before, "multi-class"), check(true, after, "multi-class")
    )
    guessed = [scores.argmax(1) for scores in (before, after)]
    expected = [balanced_accuracy_score(true, one) for one in guessed]
    assert loss == pytest.approx(expected[0] - expected[1])
    drawn = []
    for _ in range(400):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(true == c), (true == c).sum()) for c in range(3)]
        )
        a, b = (recalls(true[rows], one[rows]).mean() for one in guessed)
        drawn.append(a - b)
    assert error == pytest.approx(np.std(drawn), rel=0.15)


def test_loss_of_all_images_of_a_class_is_not_certain():
    true = np.repeat([0, 1], 8)
    before = check(true, scores_of(np.ones(16), true, 2), "multi-class")
    after = check(true, scores_of(true == 0, true, 2), "multi-class")
    loss, error = balanced_loss(before, after)
    assert loss == 0.5
    assert 0.03 < error < 0.15


def test_groups_of_copies_count_once():
    rng = np.random.default_rng(2)
    true = np.arange(60) % 2
    before, after = (scores_of(rng.random(60) < share, true, 2) for share in (0.9, 0.6))
    single = [check(true, one, "multi-class") for one in (before, after)]
    tripled = [
        check(np.tile(true, 3), np.tile(one, (3, 1)), "multi-class") for one in (before, after)
    ]
    groups = np.tile(np.arange(60), 3)
    loss, error = balanced_loss(*single)
    again = balanced_loss(*tripled, groups)
    assert again == pytest.approx((loss, error), rel=0.03)
    alone = balanced_accuracy_interval(single[1])
    assert balanced_accuracy_interval(tripled[1], groups) == pytest.approx(alone, abs=0.02)
    assert alone[0] < balanced_accuracy(true, after, "multi-class") < alone[1]
