"""From neighbours to scores: majority and distance-weighted votes, for every k from one search."""

from __future__ import annotations

import numpy as np

from medplus.vocabulary import Vote


def vote_shares(
    labels: np.ndarray,
    indices: np.ndarray,
    distances: np.ndarray,
    n_classes: int,
    vote: Vote = "majority",
    *,
    multi_label: bool = False,
) -> np.ndarray:
    """Return each class's share of the neighbours' votes.

    A majority vote is the largest share, and equal shares go to the smallest class, as with
    `scipy.stats.mode`. With multi-label data the share of a label is the mean of the neighbours'
    flags, and the label is predicted where it exceeds 0.5.

    Parameters
    ----------
    labels : ndarray of int, shape (n_train, n_labels)
        One column of class indices, or one column of 0/1 flags per label.
    indices : ndarray of int, shape (n_queries, k)
        The neighbours' rows in `labels`.
    distances : ndarray of float, shape (n_queries, k)
        Used by ``vote="distance"`` only.
    vote : {"majority", "distance"}
        Every neighbour counts the same, or by 1 / distance; where a neighbour is at distance 0,
        only those at distance 0 count (scikit-learn's convention).

    Returns
    -------
    ndarray of float32, shape (n_queries, n_classes)
        Shares from 0 to 1; they sum to 1 unless `multi_label`.
    """
    weights = _weights(distances) if vote == "distance" else np.ones(indices.shape)
    if multi_label:
        flags = labels[indices].astype(np.float64)
        shares = np.einsum("qk,qkl->ql", weights, flags) / weights.sum(1, keepdims=True)
        return np.asarray(shares, np.float32)
    classes = labels[:, 0][indices].astype(np.int64)
    cells = classes + np.arange(len(classes))[:, None] * n_classes
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(classes) * n_classes)
    votes = votes.reshape(-1, n_classes)
    return np.asarray(votes / votes.sum(1, keepdims=True), np.float32)


def _weights(distances: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1 / distances
    identical = np.isinf(inverse)
    weights: np.ndarray = np.where(identical.any(1, keepdims=True), identical, inverse)
    return weights
