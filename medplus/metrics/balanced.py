"""How sure a balanced accuracy is, and what is lost of it on the same images made worse.

Balanced accuracy is a mean of recalls, each a proportion of its own images. Its interval joins
Wilson's intervals of the recalls by the method of variance estimates recovery [1]_; labels that
share images are taken to err together, which is the widest. A difference on the same images is
judged by what each image, or group of images, brings to it; that half an image more of each class
changes sides is added, or losing all images of a class would seem certain.

References
----------
.. [1] Zou & Donner, "Construction of confidence limits about effect measures: a general approach",
   Statistics in Medicine 27(10), 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.intervals import Interval, proportion_interval
from medplus.metrics.predictions import Predictions


def balanced_accuracy_interval(cases: Predictions, groups: ArrayLike | None = None) -> Interval:
    """Return the 95 % interval of the balanced accuracy.

    Parameters
    ----------
    cases : Predictions
        Checked labels and scores.
    groups : array-like of shape (n_samples,), optional
        What each sample belongs to, such as a patient.

    Examples
    --------
    >>> from medplus.metrics import check
    >>> scores = [0.9] * 20 + [0.1] * 20
    >>> low, high = balanced_accuracy_interval(check([1] * 20 + [0] * 20, scores, "binary-class"))
    >>> round(low, 3), high
    (0.886, 1.0)
    """
    own = None if groups is None else np.asarray(groups)
    below = above = estimate = 0.0
    for parts in _recalls(cases):
        ends = []
        for rows, hits in parts:
            share = float(hits[rows].mean())
            low, high = proportion_interval(hits[rows][:, None], None if own is None else own[rows])
            ends.append((share, share - low, high - share))
        n = len(parts)
        estimate += sum(share for share, _, _ in ends) / n
        below += math.sqrt(sum(down**2 for _, down, _ in ends)) / n
        above += math.sqrt(sum(up**2 for _, _, up in ends)) / n
    labels = cases.true.shape[1]
    return max((estimate - below) / labels, 0.0), min((estimate + above) / labels, 1.0)


def balanced_loss(
    before: Predictions, after: Predictions, groups: ArrayLike | None = None
) -> tuple[float, float]:
    """Return what balanced accuracy loses from one to another prediction of the same images.

    Parameters
    ----------
    before, after : Predictions
        Of the same samples in the same order.
    groups : array-like of shape (n_samples,), optional
        See `balanced_accuracy_interval`.

    Returns
    -------
    loss, standard_error : float

    Examples
    --------
    >>> from medplus.metrics import check
    >>> before = check([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8], "binary-class")
    >>> after = check([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8], "binary-class")
    >>> loss, standard_error = balanced_loss(before, after)
    >>> round(loss, 3)
    0.25
    """
    labels = before.true.shape[1]
    own = np.arange(before.n_samples) if groups is None else np.asarray(groups)
    loss, assumed, brought = 0.0, 0.0, np.zeros(before.n_samples)
    for parts, worse in zip(_recalls(before), _recalls(after), strict=True):
        for (rows, hits), (_, later) in zip(parts, worse, strict=True):
            lost = hits[rows].astype(float) - later[rows]
            weight = 1 / (len(parts) * labels)
            loss += weight * lost.mean()
            n = len(np.unique(own[rows]))
            assumed += weight**2 * 0.5 / n * (1 - 0.5 / n) / n
            small = np.sqrt(n / (n - 1)) if n > 1 else 1.0
            brought[rows] += weight * small * (lost - lost.mean()) / len(lost)
    _, group = np.unique(own, return_inverse=True)
    return float(loss), float(np.sqrt((np.bincount(group, brought) ** 2).sum() + assumed))


Recall = tuple[NDArray[np.intp], NDArray[np.bool_]]


def _recalls(cases: Predictions) -> Iterator[list[Recall]]:
    """Yield, per label, the rows of every class that occurs, and which samples were hit."""
    for true, predicted in zip(cases.true.T, cases.predicted.T, strict=True):
        hits = true == predicted
        yield [(np.flatnonzero(true == value), hits) for value in np.unique(true)]
