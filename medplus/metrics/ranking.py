"""Metrics of the order of the scores: AUC and average precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.predictions import check
from medplus.vocabulary import MULTI_LABEL, Task


def auc(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Area under the ROC curve, as `medmnist.evaluator.getAUC` computes it.

    Mean over classes (one against the rest) or labels; the binary task has one value.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    float
        AUC in [0, 1]; NaN where any class or label lacks positives or negatives, as the
        evaluator's. `auc_present` then gives the mean over the others.

    Examples
    --------
    >>> auc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.8], "binary-class")
    0.75
    """
    return float(auc_per_class(y_true, y_score, task).mean())


def auc_present(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """AUC averaged over the classes or labels that have both positives and negatives.

    Equal to `auc` wherever that is defined; NaN if no class has both.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Examples
    --------
    >>> scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]
    >>> auc_present([0, 1, 0], scores, "multi-class")  # the third class does not occur
    1.0
    """
    return mean_of_defined(auc_per_class(y_true, y_score, task))


def auc_per_class(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> NDArray[np.float64]:
    """AUC of every class against the rest, or of every label.

    The Mann-Whitney statistic: the share of (positive, negative) pairs that the score puts in
    the right order, where a tie counts one half [1]_. O(n log n) per class.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    ndarray of shape (n_classes,), (n_labels,) or (1,) for the binary task, float64
        NaN where there is no positive or no negative.

    References
    ----------
    .. [1] Hanley & McNeil, "The meaning and use of the area under a receiver operating
       characteristic (ROC) curve", Radiology 143(1), 1982.

    Examples
    --------
    >>> scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]
    >>> auc_per_class([0, 1, 0], scores, "multi-class").tolist()
    [1.0, 1.0, nan]
    """
    cases = check(y_true, y_score, task)
    columns = zip(cases.targets.T, cases.scores.T, strict=True)
    return np.array([_column_auc(target, score) for target, score in columns])


def mean_average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Mean over labels of the average precision, for multi-label tasks.

    Average precision is the mean, over a label's positives, of the precision among all samples
    scored at least as high; scikit-learn's `average_precision_score`.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n_samples, n_labels)
        True labels.
    y_score : array-like of float, shape (n_samples, n_labels)
        Scores.

    Returns
    -------
    float
        Mean over the labels that have at least one positive; NaN if none has.

    Examples
    --------
    >>> mean_average_precision([[1, 0], [0, 1], [1, 1]], [[0.9, 0.2], [0.3, 0.8], [0.6, 0.7]])
    1.0
    """
    cases = check(y_true, y_score, MULTI_LABEL)
    columns = zip(cases.targets.T, cases.scores.T, strict=True)
    return mean_of_defined(
        np.array([average_precision(target, score) for target, score in columns])
    )


def placements(target: NDArray[np.bool_], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the other side that each sample is on the right side of, ties as halves.

    Their mean over positives is the AUC, and so is that over negatives. O(n log n).

    Parameters
    ----------
    target : ndarray of bool, shape (n_samples,)
        Which samples are positive; some are, and some are not.
    score : ndarray of float64, shape (n_samples,)

    Returns
    -------
    ndarray of float64, shape (n_samples,)

    Examples
    --------
    >>> placements(np.array([True, False, False]), np.array([0.5, 0.5, 0.1])).tolist()
    [0.75, 0.5, 1.0]
    """
    place = np.empty(len(target))
    place[target] = _share_below(score[~target], score[target])
    place[~target] = 1 - _share_below(score[target], score[~target])
    return place


def _share_below(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    # Sorted needles find their places in the cache.
    order = np.argsort(at)
    needles = at[order]
    found = np.searchsorted(ordered, needles, "left") + np.searchsorted(ordered, needles, "right")
    share = np.empty(len(at))
    share[order] = found / (2 * len(values))
    return share


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _column_auc(target: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    if target.all() or not target.any():
        return float("nan")
    return float(_share_below(score[~target], score[target]).mean())


def average_precision(target: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Return the average precision of one class or label; NaN without a positive."""
    everyone, positives = np.sort(score), np.sort(score[target])
    if not len(positives):
        return float("nan")
    at_least = len(everyone) - np.searchsorted(everyone, positives, side="left")
    true_at_least = len(positives) - np.searchsorted(positives, positives, side="left")
    return float((true_at_least / at_least).mean())
