"""Decision curves: what acting on a probability is worth, by how much one would do to be safe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def net_benefit(
    target: NDArray[np.bool_], probability: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Compute the net benefit of treating whoever has at least a probability [1]_.

    .. math:: \mathrm{NB}(t) = \frac{\mathrm{TP}}{n} - \frac{\mathrm{FP}}{n}\,\frac{t}{1 - t}

    A threshold probability t says what is accepted: at 10 %, nine treated in vain for one that
    needed it. Treating nobody has a net benefit of 0.

    Parameters
    ----------
    target : ndarray of bool, shape (n_samples,)
    probability : ndarray of float, shape (n_samples,)
    thresholds : ndarray of float, shape (n_thresholds,)
        Between 0 and 1, the latter excluded.

    Returns
    -------
    ndarray of float64, shape (n_thresholds,)
        In true positives per sample.

    References
    ----------
    .. [1] Vickers & Elkin: Decision curve analysis: a novel method for evaluating prediction
       models. Medical Decision Making 26, 565-574 (2006).

    Examples
    --------
    >>> target, probability = np.array([True, False, False]), np.array([0.9, 0.4, 0.1])
    >>> net_benefit(target, probability, np.array([0.25, 0.5])).round(3).tolist()
    [0.222, 0.333]
    """
    positive, negative = np.sort(probability[target]), np.sort(probability[~target])
    tp = len(positive) - np.searchsorted(positive, thresholds, side="left")
    fp = len(negative) - np.searchsorted(negative, thresholds, side="left")
    benefit: NDArray[np.float64] = (tp - fp * thresholds / (1 - thresholds)) / len(target)
    return benefit


def net_benefit_of_all(prevalence: float, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the net benefit of treating everybody, which falls to 0 at the prevalence.

    Examples
    --------
    >>> net_benefit_of_all(0.25, np.array([0.0, 0.25])).tolist()
    [0.25, 0.0]
    """
    benefit: NDArray[np.float64] = prevalence - (1 - prevalence) * thresholds / (1 - thresholds)
    return benefit
