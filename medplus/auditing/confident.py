"""Confident learning: which labels are wrong, from labels and out-of-fold probabilities.

References
----------
.. [1] Northcutt, Jiang, Chuang: Confident learning: estimating uncertainty in dataset labels.
   Journal of Artificial Intelligence Research 70, 2021. doi:10.1613/jair.1.12125
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-6
_LEAST = 2 * _ROUNDING


def label_issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Tell the labels off the diagonal of the count matrix of [1]_, bool, shape (n,).

    Of the classes whose threshold an image's probability reaches, it is counted as the most
    probable (equation 1); a threshold is the mean self-confidence of a class's images (equation 2),
    and nothing is counted as a class without any. A label that is also the most probable class is
    none of them.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, n_classes)
        Out of fold.

    Examples
    --------
    >>> import numpy as np
    >>> label_issues(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [False, True, False]
    """
    n_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, self_confidence(labels, probabilities), minlength=n_classes)
    means = np.maximum(sums / np.maximum(counts, 1), _LEAST)
    reached = probabilities >= np.where(counts > 0, means, np.inf) - _ROUNDING
    likely = np.where(reached, probabilities, -1.0).argmax(1)
    other = reached.any(1) & (likely != labels)
    issues: np.ndarray = other & (probabilities.argmax(1) != labels)
    return issues


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of each given label: the lower, the more doubtful."""
    own: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return own
