"""Temperature scaling: one number that makes probabilities less sure, or more."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.predictions import check
from medplus.vocabulary import MULTI_LABEL, Task

LEAST_PROBABILITY = 1e-6
"""What a probability counts as that is 0, as shares of votes often are."""
RANGE = (0.05, 20.0)
"""The temperatures that are tried."""


def scale(y_score: ArrayLike, task: Task, temperature: float) -> NDArray[np.float64]:
    r"""Return probabilities at a temperature T [1]_.

    Single-label tasks: softmax(log p / T), which for a softmax's p is that of its logits / T;
    multi-label: sigmoid(logit p / T), for each label. The order of the classes of a sample stays.

    Parameters
    ----------
    y_score : array-like of float, shape (n_samples, n_classes) or (n_samples, n_labels)
        Probabilities; for the binary task, one column of class 1 will do.
    task : Task
    temperature : float
        Above 1 brings probabilities closer together.

    Returns
    -------
    ndarray of float64
        Of the same shape; for the binary task, (n_samples, 2).

    References
    ----------
    .. [1] Guo et al., "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> scale([[0.1, 0.9]], "binary-class", 2.0).round(2).tolist()
    [[0.25, 0.75]]
    """
    from scipy.special import expit, logit, softmax

    score = np.asarray(y_score, dtype=np.float64)
    if task == "binary-class":
        score = score.reshape(len(score), -1)[:, -1:]
        score = np.hstack([1 - score, score])
    scaled: NDArray[np.float64]
    if task == MULTI_LABEL:
        scaled = expit(logit(score.clip(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)) / temperature)
    else:
        scaled = softmax(np.log(score.clip(LEAST_PROBABILITY)) / temperature, axis=1)
    return scaled


def fit_temperature(y_true: ArrayLike, y_score: ArrayLike, task: Task) -> float:
    """Return the temperature at which the true labels are most likely: fit it on val [1]_.

    Parameters
    ----------
    y_true, y_score, task
        See `medplus.metrics.check`; the scores must be probabilities.

    Returns
    -------
    float
        Within `RANGE`.

    References
    ----------
    .. [1] Guo et al., "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> right_two_times_in_three = [[0.05, 0.95]] * 3
    >>> fit_temperature([1, 1, 0], right_two_times_in_three, "binary-class") > 2
    True
    """
    from scipy.optimize import minimize_scalar

    cases = check(y_true, y_score, task)

    def loss(log_temperature: float) -> float:
        scaled = scale(y_score, task, float(np.exp(log_temperature)))
        if task == MULTI_LABEL:
            return float(-np.log(np.where(cases.targets, scaled, 1 - scaled)).mean())
        return float(-np.log(np.take_along_axis(scaled, cases.true, axis=1)).mean())

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded")
    return float(np.exp(found.x))
