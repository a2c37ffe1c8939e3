"""Out-of-fold probabilities: those of scikit-learn, fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medplus.auditing import probes
from medplus.auditing.pool import Pool
from medplus.errors import UsageError
from medplus.vocabulary import MULTI_LABEL


def make_pool(labels, task="multi-class"):
    labels = np.asarray(labels).reshape(len(labels), -1)
    n = len(labels)
    classes = labels.shape[1] if task == MULTI_LABEL else int(labels.max()) + 1
    return Pool(
        "toy", task, tuple(f"class {i}" for i in range(classes)),
        np.zeros(n, np.int8), np.arange(n), [""] * n, labels,
    )  # fmt: skip


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_equal_scikit_learns_on_the_same_folds(multi_label, monkeypatch):
    monkeypatch.setattr(probes, "L2", (0.05,))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    x = (rng.normal(size=(150, 6)) + 1.5 * np.eye(6)[y]).astype(np.float32)
    x /= x.std(0)
    targets = np.eye(3)[y]
    fold = np.arange(150) % 3
    found = probes.out_of_fold(x, targets, fold, multi_label=multi_label)
    for held_out in range(3):
        own, rest = fold == held_out, fold != held_out
        model = LogisticRegression(C=1 / (0.05 * rest.sum()), tol=1e-8, max_iter=1000)
        if multi_label:
            expected = np.column_stack(
                [model.fit(x[rest], t[rest]).predict_proba(x[own])[:, 1] for t in targets.T]
            )
        else:
            expected = model.fit(x[rest], y[rest]).predict_proba(x[own])
        assert found[own] == pytest.approx(expected, abs=2e-3)


def test_what_belongs_together_is_in_one_fold_and_classes_are_spread():
    labels = np.repeat([0, 1], 60)
    together = np.arange(120) // 2
    fold = probes.assign_folds(make_pool(labels), together, 5)
    assert (fold[::2] == fold[1::2]).all()
    assert all(np.bincount(labels[fold == k], minlength=2).min() >= 10 for k in range(5))


def test_more_folds_than_images_of_a_class_are_refused():
    pool = make_pool([0] * 30 + [1] * 3)
    with pytest.raises(
        UsageError, match="has 3 images of class 1 that are no twins; use at most --folds 3"
    ):
        probes.assign_folds(pool, np.arange(33), 5)
