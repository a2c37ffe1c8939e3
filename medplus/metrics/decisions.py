"""Metrics of the predicted labels: accuracy, balanced accuracy, macro F1, weighted kappa."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.predictions import Predictions, check
from medplus.vocabulary import MULTI_LABEL, Task


def accuracy(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Share of correct labels, as `medmnist.evaluator.getACC` computes it.

    Multi-class and ordinal: the highest score wins, the first of equals. Binary: class 1 where
    the last column is above 0.5. Multi-label: mean over labels of the accuracy at 0.5.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Examples
    --------
    >>> accuracy([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], "binary-class") == 2 / 3
    True
    """
    cases = check(y_true, y_score, task)
    return float((cases.true == cases.predicted).mean())


def balanced_accuracy(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Mean recall of the classes that occur in `y_true` [1]_.

    Multi-label: mean over labels of each label's balanced accuracy (sensitivity and specificity).

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    float
        Balanced accuracy in [0, 1].

    References
    ----------
    .. [1] Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010.

    Examples
    --------
    >>> balanced_accuracy([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], "binary-class")
    0.75
    """
    cases = check(y_true, y_score, task)
    hits, of_true, _ = _tallies(cases)
    present = of_true > 0
    recall = hits / np.where(present, of_true, 1)
    return float((recall.sum(axis=1) / present.sum(axis=1)).mean())


def macro_f1(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Unweighted mean of F1 scores, as scikit-learn's `f1_score(average="macro")`.

    Single-label tasks: mean over the classes that are true or predicted at least once.
    Multi-label: mean over all labels of the F1 of the positive class; a label that is neither
    true nor predicted counts as 0 (`zero_division=0`).

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    float
        Macro F1 in [0, 1].

    Examples
    --------
    >>> round(macro_f1([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], "binary-class"), 3)
    0.667
    """
    cases = check(y_true, y_score, task)
    hits, of_true, of_predicted = _tallies(cases)
    total = of_true + of_predicted
    f1 = 2 * hits / np.maximum(total, 1)
    if task == MULTI_LABEL:
        return float(f1[:, 1].mean())
    return float(f1[total > 0].mean())


def qwk(y_true: ArrayLike, y_score: ArrayLike) -> float:
    r"""Kappa with quadratic weights, for ordinal classes [1]_.

    .. math:: \kappa = 1 - \frac{\sum_{ij} (i-j)^2 O_{ij}}{\sum_{ij} (i-j)^2 E_{ij}}

    where O is the confusion matrix and E the one expected from its margins. Distances count in
    class numbers, also where a class in between does not occur.

    Parameters
    ----------
    y_true : array-like of int, shape (n_samples,) or (n_samples, 1)
        True classes.
    y_score : array-like of float, shape (n_samples, n_classes)
        Scores; the highest wins.

    Returns
    -------
    float
        Kappa, at most 1. NaN where all true and predicted labels are one and the same class.

    References
    ----------
    .. [1] Cohen, "Weighted kappa: nominal scale agreement with provision for scaled disagreement
       or partial credit", Psychological Bulletin 70(4), 1968.

    Examples
    --------
    >>> scores = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    >>> round(qwk([0, 1, 2, 2], scores), 3)
    0.8
    """
    cases = check(y_true, y_score, "ordinal-regression")
    n_classes = cases.n_classes
    pair = cases.true[:, 0] * n_classes + cases.predicted[:, 0]
    observed = np.bincount(pair, minlength=n_classes**2).reshape(n_classes, n_classes)
    margins = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / cases.n_samples
    classes = np.arange(n_classes)
    weight = (classes[:, None] - classes) ** 2
    expected = float((weight * margins).sum())
    return 1.0 - float((weight * observed).sum()) / expected if expected > 0 else float("nan")


def _tallies(
    cases: Predictions,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count hits, true labels and predicted labels, each of shape (n_labels, n_classes)."""
    n_labels = cases.true.shape[1]
    offset = cases.n_classes * np.arange(n_labels)
    true, predicted = cases.true + offset, cases.predicted + offset

    def count(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        tally = np.bincount(codes.ravel(), minlength=n_labels * cases.n_classes)
        return tally.reshape(n_labels, cases.n_classes)

    return count(true[true == predicted]), count(true), count(predicted)
