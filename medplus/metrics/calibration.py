"""Calibration: whether a predicted probability of p comes true with frequency p."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.errors import RunError
from medplus.metrics.predictions import check
from medplus.vocabulary import MULTI_LABEL, Task

N_BINS = 15
ROUNDING = 1e-4
"""How far a probability may leave [0, 1]; normalising in float32 or half precision does that."""


def ece(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    r"""Compute the expected calibration error with 15 bins of equal width [1]_.

    .. math:: \mathrm{ECE} = \sum_m \frac{|B_m|}{n} \,|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    where bin m holds the samples of confidence in ((m - 1) / 15, m / 15]; zero falls into the
    first. Confidence and outcome are

    - multi-class, ordinal: the highest probability, and whether its class is the true one;
    - binary: max(p, 1 - p) for p = P(class 1), and whether (p > 0.5) is the true class;
    - multi-label: P(label), and whether the label is set; the mean over labels is returned.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`; the scores must be probabilities.

    Returns
    -------
    float
        Calibration error in [0, 1].

    Raises
    ------
    RunError
        If a score lies outside [0, 1].

    References
    ----------
    .. [1] Guo et al., "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> round(ece([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8], "binary-class"), 3)
    0.3
    """
    cases = check(y_true, y_score, task)
    low, high = float(cases.scores.min()), float(cases.scores.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise RunError(
            f"y_score ranges from {low:.4g} to {high:.4g}; the calibration error needs "
            "probabilities in [0, 1]. Apply a softmax or sigmoid first."
        )
    probability = cases.scores.clip(0.0, 1.0)
    if task == MULTI_LABEL:
        columns = zip(cases.targets.T, probability.T, strict=True)
        return float(np.mean([_gap(*column) for column in columns]))
    if task == "binary-class":
        probability = np.hstack([1.0 - probability, probability])
    return _gap((cases.predicted == cases.true)[:, 0], probability.max(axis=1))


def _gap(outcome: NDArray[np.bool_], confidence: NDArray[np.float64]) -> float:
    found = reliability(outcome, confidence, N_BINS)
    return float(np.abs(found.observed - found.predicted) @ found.n / len(outcome))


def brier(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Compute the Brier score: the mean squared error of probabilities [1]_.

    - multi-class, ordinal: the squared errors of all classes added up, from 0 to 2;
    - binary: that of P(class 1), from 0 to 1;
    - multi-label: as binary, the mean over labels.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`.

    Returns
    -------
    float
        The lower, the better.

    References
    ----------
    .. [1] Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
       Review 78(1), 1950.

    Examples
    --------
    >>> round(brier([1, 0], [0.8, 0.4], "binary-class"), 3)
    0.1
    """
    cases = check(y_true, y_score, task)
    errors = (cases.scores - cases.targets) ** 2
    return float(errors.mean() if task == MULTI_LABEL else errors.sum(axis=1).mean())


class Reliability(NamedTuple):
    """How often predicted probabilities come true: a reliability diagram.

    Attributes
    ----------
    predicted, observed : ndarray of float64, shape (n_bins,)
        The mean probability, and the share of positives, of the samples in a bin.
    n, n_positive : ndarray of int64, shape (n_bins,)
        Samples and positives in it; bins without a sample are left out.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    n: NDArray[np.int64]
    n_positive: NDArray[np.int64]


def reliability(
    target: NDArray[np.bool_], probability: NDArray[np.float64], n_bins: int = 10
) -> Reliability:
    """Compare the probabilities of one class with how often they come true, in equal bins [1]_.

    Parameters
    ----------
    target : ndarray of bool, shape (n_samples,)
    probability : ndarray of float, shape (n_samples,)
    n_bins : int, default 10
        Of equal width; their upper edge is theirs.

    References
    ----------
    .. [1] Murphy & Winkler, "Reliability of subjective probability forecasts of precipitation and
       temperature", Applied Statistics 26(1), 1977.

    Examples
    --------
    >>> found = reliability(np.array([False, True, True]), np.array([0.18, 0.82, 0.86]))
    >>> found.predicted.round(2).tolist(), found.observed.tolist(), found.n.tolist()
    ([0.18, 0.84], [0.0, 1.0], [1, 2])
    """
    edges = np.arange(1, n_bins) / n_bins
    bins = np.digitize(probability, edges, right=True)
    n = np.bincount(bins, minlength=n_bins)
    positive = np.bincount(bins[target], minlength=n_bins)
    total = np.bincount(bins, weights=probability, minlength=n_bins)
    used = n > 0
    n, positive = n[used], positive[used]
    return Reliability(total[used] / n, positive / n, n, positive)
