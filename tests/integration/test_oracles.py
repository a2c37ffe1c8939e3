"""A probe that has converged is scikit-learn's logistic regression, found by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

import medplus
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL


def overlapping(task: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and labels of which no plane separates the classes."""
    if task == MULTI_LABEL:
        labels = rng.integers(0, 2, (n, 3), dtype=np.uint8)
        centres = labels.astype(np.float64)
    else:
        labels = rng.integers(0, 2 if task == "binary-class" else 3, n, dtype=np.uint8)
        centres = np.eye(3)[labels]
    return (centres + rng.normal(0, 0.8, (n, 3))).astype(np.float32), labels


@pytest.mark.parametrize("task", ["binary-class", "multi-class", MULTI_LABEL])
def test_converged_probe_is_logistic_regression(
    task: str, write_store: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x, y = overlapping(task, 200, rng)
    x_test, y_test = overlapping(task, 100, rng)
    classes = 2 if task == "binary-class" else 3
    # Judged on what it is trained on, the best head is the one that has converged.
    store = write_store((x, x, x_test), (y, y, y_test), classes=classes, task=task)
    recipe = {"lr": 0.05, "weight_decay": 0.0, "epochs": 400, "patience": 400, "batch_size": 200}

    [record] = medplus.probe(store, [1], **recipe, runs=tmp_path, device="cpu")

    oracle = LogisticRegression(C=np.inf, max_iter=1000)
    if task == MULTI_LABEL:
        oracle = OneVsRestClassifier(oracle)
    expected = oracle.fit(x, y).predict_proba(x_test)
    found = read_predictions(Path(record.path))["test_score"]
    np.testing.assert_allclose(found, expected, atol=2e-3)
