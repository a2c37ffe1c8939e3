"""Doubtful labels: out-of-fold probabilities of every store, confident learning, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medplus.auditing.confident import label_issues, self_confidence
from medplus.auditing.pool import Pool
from medplus.auditing.probes import assign_folds, out_of_fold

NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Labels:
    """What was found of the labels.

    Attributes
    ----------
    issue : ndarray of bool, shape (n,)
        Whether a label is doubtful: by out-of-fold probabilities, the mean of a linear probe and
        of the nearest neighbours, over all stores.
    score : ndarray of float, shape (n,)
        1 − the probability of the given label; of several labels, of the least probable.
    agreement : ndarray of int, shape (n,)
        How many stores alone find the label doubtful: what to look at first.
    suggested : ndarray of int, shape (n, n_labels)
        What the labels would be; where nothing is doubtful, as given.
    fold : ndarray of int64, shape (n,)
        The fold that each image was held out in.
    """

    issue: np.ndarray
    score: np.ndarray
    agreement: np.ndarray
    suggested: np.ndarray
    fold: np.ndarray

    @property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    @property
    def ranking(self) -> np.ndarray:
        """The rows with doubtful labels, first what most stores agree on, then by score."""
        found = np.flatnonzero(self.issue)
        order: np.ndarray = found[np.lexsort((-self.score[found], -self.agreement[found]))]
        return order


def check_labels(
    pool: Pool,
    features: Sequence[np.ndarray],
    neighbours: Sequence[np.ndarray],
    together: np.ndarray,
    folds: int | None = None,
) -> Labels:
    """Find labels that the embeddings contradict.

    Parameters
    ----------
    pool : Pool
    features : sequence of ndarray of float32, shape (n, dim)
        Reduced embeddings of every store.
    neighbours : sequence of ndarray of int, shape (n, k)
        The nearest other rows, per store.
    together : ndarray of int, shape (n,)
        Twins have one number, and so have images of a patient: a label that its twin repeats is
        not confirmed by that.
    folds : int, optional
        By default 5, or as many as the smallest class has images.

    Raises
    ------
    UsageError
        If there are more folds than images of the smallest class, or than groups.
    """
    fold = assign_folds(pool, together, folds)
    targets = _targets(pool)
    each = [
        (
            out_of_fold(values, targets, fold, multi_label=pool.multi_label)
            + _shares(near, targets, fold)
        )
        / 2
        for values, near in zip(features, neighbours, strict=True)
    ]
    judged = [_judge(pool, probabilities) for probabilities in each]
    issue, score, suggested = _judge(pool, np.mean(each, axis=0))
    agreement = np.sum([found[0] for found in judged], axis=0)
    return Labels(issue, score, agreement, suggested, fold)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return one number for whatever is linked by either of two groupings, int64, shape (n,)."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    n = len(first)
    offset = int(first.max()) + 1
    links = sparse.coo_matrix((np.ones(n), (first, second + offset)),
                              (offset + int(second.max()) + 1,) * 2)  # fmt: skip
    component: np.ndarray = connected_components(links, directed=False)[1][first]
    return np.asarray(component, np.int64)


def _targets(pool: Pool) -> np.ndarray:
    if pool.multi_label:
        return np.asarray(pool.labels, np.float32)
    return np.asarray(np.eye(len(pool.classes), dtype=np.float32)[pool.strata])


def _shares(near: np.ndarray, targets: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return what share of the nearest images of other folds has each label."""
    allowed = fold[near] != fold[:, None]
    allowed &= np.cumsum(allowed, 1) <= NEIGHBOURS
    shares = np.zeros(targets.shape)
    for column in range(near.shape[1]):
        shares += targets[near[:, column]] * allowed[:, column, None]
    counts = allowed.sum(1, keepdims=True)
    prior = targets.mean(0, keepdims=True)
    return np.asarray(np.where(counts > 0, shares / np.maximum(counts, 1), prior))


def _judge(pool: Pool, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which labels are doubtful, how much, and what they would be."""
    if not pool.multi_label:
        given = pool.strata
        issue = label_issues(given, probabilities)
        likely = np.where(issue, probabilities.argmax(1), given)[:, None]
        return issue, 1 - self_confidence(given, probabilities), likely
    given = pool.labels.astype(np.int64)
    doubtful = np.empty(given.shape, bool)
    doubt = np.empty(given.shape)
    for column, (own, yes) in enumerate(zip(given.T, probabilities.T, strict=True)):
        both = np.column_stack([1 - yes, yes])
        doubtful[:, column] = label_issues(own, both)
        doubt[:, column] = 1 - self_confidence(own, both)
    score = np.where(doubtful.any(1), np.where(doubtful, doubt, -1).max(1), doubt.max(1))
    return np.asarray(doubtful.any(1)), score, np.where(doubtful, 1 - given, given)
