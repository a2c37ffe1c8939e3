"""The split that medplus makes where none is given: seeded, stratified, groups kept whole."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Assignment = npt.NDArray[np.int64]

_FREQUENT = 10
_MANY_GROUPS = 3000
_MOST_FOLDS = 20


def split(
    flags: npt.NDArray[np.float64],
    groups: Sequence[Hashable] | None,
    fractions: Sequence[float],
    seed: int,
) -> Assignment:
    """Deal samples out to parts so that each part has its share of every class.

    Of several labels, rare sets of them go by their rarest label.

    Parameters
    ----------
    flags : ndarray, shape (n_samples, n_classes)
        1 where a sample is of a class or has a label.
    groups : sequence of hashable, optional
        Samples of one group come into one part.
    fractions : sequence of float
        The share of each part; they add up to 1.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        The part of each sample. Without groups, every class with as many samples as there are
        parts is in all of them. With groups, no part is empty where there are as many groups.
    """
    rng = np.random.RandomState(np.random.MT19937(seed))
    strata = _strata(flags, len(fractions))
    units = None
    if groups is not None:
        names, units = np.unique(np.asarray(groups, str), return_inverse=True)
        if len(names) > _MANY_GROUPS:  # so many that chance evens their sizes out
            of_group = np.zeros((len(names), flags.shape[1]))
            np.maximum.at(of_group, units, flags)
            return split(of_group, None, fractions, seed)[units]
    parts = np.zeros(len(flags), np.int64)
    for part in range(len(fractions) - 1, 0, -1):  # what no part takes is the first's
        left = np.flatnonzero(parts == 0)
        share = fractions[part] / sum(fractions[: part + 1])
        if units is None:
            taken = _take(strata[left], share, part, rng)
        else:
            taken = _take_groups(strata[left], units[left], share, part, rng)
        parts[left[taken]] = part
    return parts


def deal(
    strata: npt.NDArray[np.integer],
    groups: npt.NDArray[Any] | None,
    n_folds: int,
    seed: int | np.random.RandomState,
) -> Assignment:
    """Deal samples out to folds, stratified and shuffled; those of one group come into one fold.

    Parameters
    ----------
    strata : ndarray of int, shape (n_samples,)
        Classes, of which each fold has its share.
    groups : ndarray, shape (n_samples,), or None
    n_folds, seed : int

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        The number of each sample's fold, in the order of scikit-learn's `StratifiedKFold`, or of
        `StratifiedGroupKFold`. With groups a fold may be empty.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    dealt = np.empty(len(strata), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer samples than folds
        folds = kind(n_folds, shuffle=True, random_state=seed).split(strata, strata, groups)
        for fold, (_, rows) in enumerate(folds):
            dealt[rows] = fold
    return dealt


def _strata(flags: npt.NDArray[np.float64], n_parts: int) -> npt.NDArray[np.intp]:
    """Return each sample's stratum: its set of labels where that is frequent, else its rarest.

    What is too rare for all parts goes together.
    """
    sets, strata, counts = np.unique(flags, axis=0, return_inverse=True, return_counts=True)
    rarest = np.where(sets > 0, flags.sum(0), np.inf).argmin(1) + len(sets)
    strata = np.where(counts >= _FREQUENT, np.arange(len(sets)), rarest)[strata.ravel()]
    for other in (-1, np.bincount(strata).argmax()):
        values, where, sizes = np.unique(strata, return_inverse=True, return_counts=True)
        strata = np.where(sizes < n_parts, other, values)[where]
    return np.asarray(np.unique(strata, return_inverse=True)[1])


def _take(
    strata: npt.NDArray[np.intp], share: float, n_left: int, rng: np.random.RandomState
) -> npt.NDArray[np.bool_]:
    """Tell which samples go to a part: of each stratum some, and enough stay for `n_left` more."""
    from sklearn.model_selection import train_test_split

    values = np.unique(strata)
    n = len(strata)
    size = int(np.clip(round(n * share), len(values), n - n_left * len(values)))
    _, chosen = train_test_split(np.arange(n), test_size=size, stratify=strata, random_state=rng)
    taken = np.zeros(n, bool)
    taken[chosen] = True
    for value in values:
        mine = np.flatnonzero(strata == value)
        n_taken = int(np.clip(taken[mine].sum(), 1, len(mine) - n_left))
        here, there = mine[taken[mine]], mine[~taken[mine]]
        taken[mine] = False
        taken[np.concatenate([here, there])[:n_taken]] = True
    return taken


def _take_groups(
    strata: npt.NDArray[np.intp],
    groups: npt.NDArray[np.intp],
    share: float,
    n_left: int,
    rng: np.random.RandomState,
) -> npt.NDArray[np.bool_]:
    """Tell which samples go to a part: whole groups, the folds that make up its share.

    Where groups are few, or large, at least `n_left` of them stay for the parts to come.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if np.bincount(strata).max() < 2:  # nothing to stratify
        strata = np.zeros_like(strata)
    most = min(_MOST_FOLDS, len(names), int(np.bincount(strata).max()))
    n_folds = next((k for k in range(2, most) if abs(round(share * k) / k - share) < 0.005), most)
    dealt = deal(strata, groups, n_folds, rng)
    folds = [np.flatnonzero(dealt == fold) for fold in np.unique(dealt)]
    n_taken = max(1, round(share * n_folds))
    folds.sort(key=lambda fold: abs(len(fold) - share * len(strata) / n_taken))
    chosen = {groups[i] for fold in folds[:n_taken] for i in fold}
    smallest_last = sorted(chosen, key=lambda name: -sizes[np.searchsorted(names, name)])
    kept = smallest_last[-max(1, min(len(chosen), len(names) - n_left)) :]
    return np.isin(groups, kept)
