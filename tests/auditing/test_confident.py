"""Confident learning against a plain loop of the published algorithm, and against cleanlab."""

from __future__ import annotations

import numpy as np
import pytest

from medplus.auditing.confident import label_issues, self_confidence


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet(np.ones(4), 300) + 2 * np.eye(4)[true]
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = np.where(rng.random(300) < 0.1, rng.integers(0, 4, 300), true)
    return labels, probabilities


def loop(labels, probabilities):
    """Northcutt et al. 2021, section 3.1, as it is written there."""
    n_classes = probabilities.shape[1]
    limit = [np.mean([p[j] for p, y in zip(probabilities, labels, strict=True) if y == j])
             for j in range(n_classes)]  # fmt: skip
    issues = []
    for p, y in zip(probabilities, labels, strict=True):
        reached = [j for j in range(n_classes) if p[j] >= limit[j]]
        likely = max(reached, key=lambda j: p[j]) if reached else None
        issues.append(likely is not None and likely != y and int(p.argmax()) != y)
    return np.array(issues)


def test_issues_are_those_of_the_published_algorithm(noisy):
    issues = loop(*noisy)
    assert np.array_equal(label_issues(*noisy), issues)
    assert issues.any()


def test_issues_are_those_of_cleanlab(noisy):
    from cleanlab.filter import find_label_issues

    found = find_label_issues(*noisy, filter_by="confident_learning")
    assert np.array_equal(label_issues(*noisy), found)


def test_a_class_without_images_is_never_suggested():
    probabilities = np.array([[0.4, 0.1, 0.5], [0.2, 0.3, 0.5]])
    labels = np.array([0, 1])
    assert not label_issues(labels, probabilities).any()
    assert self_confidence(labels, probabilities).tolist() == [0.4, 0.3]
