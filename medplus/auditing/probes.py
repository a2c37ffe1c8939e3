"""Out-of-fold probabilities of linear probes."""

from __future__ import annotations

import numpy as np

from medplus.auditing.pool import Pool
from medplus.datasets.splits import deal
from medplus.errors import UsageError

L2 = (1e-3, 1e-2, 1e-1)
"""Penalties that are tried; that of the least out-of-fold loss is taken."""
FOLDS = 5


def assign_folds(pool: Pool, together: np.ndarray, folds: int | None) -> np.ndarray:
    """Return the fold of every image, stratified, with what belongs together in one fold.

    Parameters
    ----------
    together : ndarray of int, shape (n,)
        Images of one number, such as twins or a patient's, stay together.
    folds : int, optional
        By default 5, or as many as the smallest class has images that are no twins.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    UsageError
        If there are more folds than images of the smallest class, or than groups.
    """
    strata = (pool.strata > 0).astype(np.int64) if pool.multi_label else pool.strata
    _, one, of = np.unique(together, return_index=True, return_inverse=True)
    classes, counts = np.unique(strata[one], return_counts=True)
    small, n_small = int(classes[counts.argmin()]), int(counts.min())
    if folds is None:
        folds = int(np.clip(n_small, 2, FOLDS))
    if not pool.multi_label and n_small < folds:
        raise UsageError(
            f"--folds {folds}: {pool.dataset} has {n_small} images of {pool.classes[small]} that "
            f"are no twins; use at most --folds {max(2, n_small)}, or leave the class out"
        )
    if len(one) < folds:
        raise UsageError(f"--folds {folds}: {pool.dataset} has only {len(one)} groups of images")
    if pool.groups is None:  # only twins: few and small, so that any of them stands for all
        return deal(strata[one], None, folds, 0)[of]
    return deal(strata, together, folds, 0)


def out_of_fold(
    features: np.ndarray, targets: np.ndarray, fold: np.ndarray, *, multi_label: bool
) -> np.ndarray:
    """Return the probabilities that linear probes give images which they were not fitted on.

    Logistic regression (softmax, or a sigmoid per label) with an L2 penalty on standardised
    features, see `medplus.heads.probe.convex.logistic_heads`.

    Parameters
    ----------
    features : ndarray of float32, shape (n, dim)
    targets : ndarray, shape (n, n_classes)
        One-hot, or 0/1 flags.
    fold : ndarray of int64, shape (n,)
    multi_label : bool

    Returns
    -------
    ndarray of float64, shape (n, n_classes)
    """
    import torch

    from medplus.heads.probe.convex import head_scores, logistic_heads

    spread = features.std(0, dtype=np.float64)
    scaled = (features / np.maximum(spread, spread.max() * 1e-3 + 1e-30)).astype(np.float32)
    x, y = torch.from_numpy(scaled), torch.from_numpy(targets.astype(np.float32))
    tried = np.empty((len(L2), *targets.shape))
    for held_out in range(int(fold.max()) + 1):
        own = fold == held_out
        strengths = [1 / (l2 * (~own).sum()) for l2 in L2]
        heads = logistic_heads(x[~own], y[~own], strengths, multi_label=multi_label)
        tried[:, own] = head_scores(x[own], *heads, multi_label=multi_label)
    return min(tried, key=lambda found: _log_loss(found, targets, multi_label=multi_label))


def _log_loss(probabilities: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """Return the mean cross-entropy of probabilities."""
    loss = targets * np.log(np.clip(probabilities, 1e-12, 1))
    if multi_label:
        loss = loss + (1 - targets) * np.log(np.clip(1 - probabilities, 1e-12, 1))
    return float(-loss.sum(1).mean())
