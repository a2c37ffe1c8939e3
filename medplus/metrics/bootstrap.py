"""Bootstrap of accuracy and AUC over samples, by how often each sample is drawn.

A resample is a column of counts rather than a list of rows, and both metrics are sums over
counts: all resamples of a block are scored by a few matrix products, and nothing is sorted twice.
The counts depend on (n_samples, seed) alone, so that all heads scored on one test set share the
same resamples (kept between calls) and can be compared resample by resample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.intervals import LEVEL
from medplus.metrics.predictions import Predictions

BLOCK_CELLS = 2**20
"""Counts per block of resamples, so that a block and its products stay in cache."""
KEPT_BLOCKS = 64
"""Blocks kept between calls, one byte per count: 64 MB at most up to 65 536 samples."""


@dataclass(frozen=True, eq=False)
class Replicates:
    """Metrics of every bootstrap resample.

    Attributes
    ----------
    acc : ndarray of shape (n_resamples,), float64
        Accuracy.
    auc : ndarray of shape (n_resamples,), float64
        AUC averaged over the classes or labels that have positives and negatives in that
        resample; NaN where none has.
    """

    acc: NDArray[np.float64]
    auc: NDArray[np.float64]


def replicates(
    cases: Predictions,
    n_resamples: int,
    seed: int = 0,
    groups: ArrayLike | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> Replicates:
    """Score `n_resamples` resamples of the samples, drawn with replacement.

    Parameters
    ----------
    cases : Predictions
        Checked labels and scores.
    n_resamples : int
        Number of resamples, at least 1.
    seed : int, default 0
        Same seed, same resamples; a larger number of resamples starts with the smaller one's.
    groups : array-like of shape (n_samples,), optional
        See `resample_counts`.
    keep : ndarray of shape (n_samples,), bool, optional
        Score only these samples of each resample: paired with the same resamples of all.

    Returns
    -------
    Replicates
        Accuracy and AUC of every resample.

    Examples
    --------
    >>> from medplus.metrics import check
    >>> cases = check([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8], "binary-class")
    >>> replicates(cases, 200).acc.shape
    (200,)
    """
    # Sums of counts are whole numbers below 2**24: float32 holds them exactly, in any order.
    hits = (cases.true == cases.predicted).sum(axis=1)
    tallied = np.column_stack([hits, cases.targets]).T.astype(np.float32)
    columns = zip(cases.targets.T, cases.scores.T, strict=True)
    ladders = [_Ladder.build(target, score) for target, score in columns]
    acc, auc = [], []
    for counts in resample_counts(cases.n_samples, n_resamples, seed, groups):
        weights = counts.astype(np.float32)
        if keep is not None:
            weights *= keep[:, None]
        drawn = weights.sum(axis=0, dtype=np.float64)
        hit, *positives = (tallied @ weights).astype(np.float64)
        acc.append(hit / np.maximum(drawn * cases.true.shape[1], 1))
        pairs = np.stack([p * (drawn - p) for p in positives])
        discordant = np.stack([ladder.discordant(weights) for ladder in ladders])
        defined = pairs > 0
        of_class = np.where(defined, 1.0 - discordant / np.where(defined, pairs, 1.0), 0.0)
        n_defined = defined.sum(axis=0)
        mean = of_class.sum(axis=0) / np.maximum(n_defined, 1)
        auc.append(np.where(n_defined > 0, mean, np.nan))
    return Replicates(np.concatenate(acc), np.concatenate(auc))


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the central 95 % of bootstrap replicates: the percentile interval [1]_.

    Parameters
    ----------
    values : ndarray of shape (n_resamples,)
        Replicates of one metric; NaN replicates are left out.

    Returns
    -------
    tuple of float or None
        The 2.5th and the 97.5th percentile; None if every replicate is NaN.

    References
    ----------
    .. [1] Efron & Tibshirani, "An introduction to the bootstrap", Chapman & Hall 1993, chapter 13.

    Examples
    --------
    >>> low, high = percentile_interval(np.arange(201.0))
    >>> round(low), round(high)
    (5, 195)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resample_counts(
    n_samples: int, n_resamples: int, seed: int = 0, groups: ArrayLike | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield how often each sample is drawn in each resample, in blocks of resamples.

    Parameters
    ----------
    n_samples, n_resamples : int
        Size of a resample, and how many of them.
    seed : int, default 0
        Seed of the draws.
    groups : array-like of shape (n_samples,), optional
        What each sample belongs to, such as a patient: groups are then drawn, each with all of its
        samples, and resamples differ in size.

    Yields
    ------
    ndarray of shape (n_samples, block), uint8, read-only
        Counts; every column sums to `n_samples`, where there are no groups.

    Examples
    --------
    >>> counts = next(resample_counts(4, 200))
    >>> counts.shape, set(counts.sum(axis=0).tolist())
    ((4, 200), {4})
    """
    width = int(np.clip(BLOCK_CELLS // n_samples, 16, 1024))
    n_units, unit = n_samples, None
    if groups is not None:
        names, unit = np.unique(np.asarray(groups), return_inverse=True)
        n_units = len(names)
    for index, start in enumerate(range(0, n_resamples, width)):
        block = _count_block(n_units, min(width, n_resamples - start), seed, index)
        yield block if unit is None else block[unit]


@lru_cache(maxsize=KEPT_BLOCKS)
def _count_block(n_samples: int, width: int, seed: int, index: int) -> NDArray[np.uint8]:
    draws = np.random.default_rng([seed, index]).integers(0, n_samples, size=(width, n_samples))
    # One byte is enough: that a sample is drawn more than 255 times has odds below 1 / 255!.
    counts = np.empty((width, n_samples), dtype=np.uint8)
    for resample, drawn in enumerate(draws):
        counts[resample] = np.bincount(drawn, minlength=n_samples)
    block = np.ascontiguousarray(counts.T)
    block.flags.writeable = False
    return block


@dataclass(frozen=True, eq=False)
class _Ladder:
    """The order of positives and negatives in one one-vs-rest problem, ready to be weighted.

    The rungs are the distinct scores of positives that have a negative at or above them. Row k
    of `negatives` sums the negatives between rung k (counted from the top) and the rung above:
    one half of those tied with either, all of those between. The running sum over rows is then
    what Mann-Whitney sets against the positives of rung k, which row k of `positives` sums.
    """

    positives: Any
    negatives: Any

    @classmethod
    def build(cls, target: NDArray[np.bool_], score: NDArray[np.float64]) -> _Ladder:
        from scipy.sparse import csr_array

        positive, negative = np.flatnonzero(target), np.flatnonzero(~target)
        rungs, rung = np.unique(score[positive], return_inverse=True)
        sides = [np.searchsorted(rungs, score[negative], side=s) - 1 for s in ("left", "right")]
        below, who = np.concatenate(sides), np.tile(negative, 2)
        who, below = who[below >= 0], below[below >= 0]
        used, row = np.unique(below, return_inverse=True)
        # A rung that no negative separates from the next one above is counted with that one.
        step = np.searchsorted(used, rung)
        beaten = step < len(used)
        top, shape = len(used) - 1, (len(used), len(target))
        halves = np.full(len(who), 0.5, dtype=np.float32)
        ones = np.ones(int(beaten.sum()), dtype=np.float32)
        return cls(
            csr_array((ones, (top - step[beaten], positive[beaten])), shape=shape),
            csr_array((halves, (top - row, who)), shape=shape),
        )

    def discordant(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Count the pairs in the wrong order, ties as halves, per column of `weights`."""
        above = np.cumsum(self.negatives @ weights, axis=0)
        pairs: NDArray[np.float32] = (self.positives @ weights) * above
        total: NDArray[np.float64] = pairs.sum(axis=0, dtype=np.float64)
        return total
