"""Heads with a unique optimum, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from medplus.heads.probe.convex import logistic_heads, ridge_heads

STRENGTHS = [1e-3, 1.0, 0.03]


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:300] / 16, y[:300]


@pytest.mark.parametrize("n_classes", [2, 10])
def test_logistic_heads_are_scikit_learns_optima(digits, n_classes):
    x, y = (part[digits[1] < n_classes] for part in digits)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y)).float()
    weight, bias = logistic_heads(torch.from_numpy(x).float(), targets, STRENGTHS)
    for at, c in enumerate(STRENGTHS):
        if n_classes == 2:  # scikit-learn then has one logit, of which ours is the difference
            oracle = LogisticRegression(C=2 * c, tol=1e-9, max_iter=10_000).fit(x, y)
            mine = (weight[at, 1] - weight[at, 0]).numpy()[None]
            np.testing.assert_allclose(mine, oracle.coef_, atol=2e-4)
        else:
            oracle = LogisticRegression(C=c, tol=1e-9, max_iter=10_000).fit(x, y)
            np.testing.assert_allclose(weight[at].numpy(), oracle.coef_, atol=2e-4)
        probabilities = (torch.from_numpy(x).float() @ weight[at].T + bias[at]).softmax(1)
        np.testing.assert_allclose(probabilities, oracle.predict_proba(x), atol=1e-4)


def test_logistic_heads_of_several_labels_are_one_regression_each(digits):
    x, y = digits
    labels = np.stack([y % 2, y > 4], 1)
    weight, bias = logistic_heads(
        torch.from_numpy(x).float(), torch.from_numpy(labels).float(), [0.1], multi_label=True
    )
    for label in range(2):
        oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000).fit(x, labels[:, label])
        np.testing.assert_allclose(weight[0, label], oracle.coef_[0], atol=2e-4)
        assert bias[0, label].item() == pytest.approx(oracle.intercept_[0], abs=2e-4)


def test_ridge_heads_are_scikit_learns(digits):
    x, y = digits
    targets = np.eye(10, dtype=np.float32)[y]
    strengths = [1e-2, 1.0, 100.0]
    weight, bias = ridge_heads(torch.from_numpy(x).float(), torch.from_numpy(targets), strengths)
    for at, alpha in enumerate(strengths):
        oracle = Ridge(alpha).fit(x.astype(np.float64), targets)
        np.testing.assert_allclose(weight[at], oracle.coef_, atol=1e-4)
        np.testing.assert_allclose(bias[at], oracle.intercept_, atol=1e-4)


def test_ridge_takes_features_that_are_constant_or_more_than_the_samples():
    rng = np.random.default_rng(0)
    x = np.hstack([rng.normal(size=(8, 20)), np.ones((8, 3))]).astype(np.float32)
    y = rng.normal(size=(8, 2)).astype(np.float32)
    weight, _ = ridge_heads(torch.from_numpy(x).float(), torch.from_numpy(y), [1e-3])
    oracle = Ridge(1e-3).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(weight[0], oracle.coef_, atol=1e-4)
