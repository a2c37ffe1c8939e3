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


def thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return each class's mean self-confidence: the t_j of equation 2 of [1]_.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, n_classes)
        Out of fold.

    Returns
    -------
    ndarray of float, shape (n_classes,)
        Infinite for a class without images, so that nothing is counted as one of it.
    """
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, own, minlength=probabilities.shape[1])
    means = np.maximum(sums / np.maximum(counts, 1), _LEAST)
    return np.where(counts > 0, means, np.inf)


def confident_classes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the class that each image is confidently counted as, or −1.

    Of the classes whose threshold its probability reaches it is the most probable: equation 1
    of [1]_.
    """
    reached = probabilities >= thresholds(labels, probabilities) - _ROUNDING
    likely = np.where(reached, probabilities, -1.0).argmax(1)
    return np.where(reached.any(1), likely, -1)


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the count matrix C of [1]_: given label by confident class, int64.

    Examples
    --------
    >>> import numpy as np
    >>> confident_joint(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]))
    array([[1, 1],
           [0, 1]])
    """
    n_classes = probabilities.shape[1]
    confident = confident_classes(labels, probabilities)
    counted = confident >= 0
    joint = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(joint, (labels[counted], confident[counted]), 1)
    return joint


def label_issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Tell the labels off the diagonal of the count matrix, bool, shape (n,).

    A label that is also the most probable class is none of them.
    """
    confident = confident_classes(labels, probabilities)
    other = (confident >= 0) & (confident != labels)
    issues: np.ndarray = other & (probabilities.argmax(1) != labels)
    return issues


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of each given label: the lower, the more doubtful."""
    own: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return own
