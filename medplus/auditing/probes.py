"""Out-of-fold probabilities: the linear probes of all folds fitted as one stack."""

from __future__ import annotations

import numpy as np

from medplus.auditing.pool import Pool
from medplus.errors import UsageError

L2 = (1e-3, 1e-2, 1e-1)
"""Penalties that are tried; that of the least out-of-fold loss is taken."""
FOLDS = 5
_STEPS = 60


def assign_folds(
    pool: Pool, together: np.ndarray, folds: int | None = None, seed: int = 0
) -> np.ndarray:
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
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    strata = (pool.strata > 0).astype(np.int64) if pool.multi_label else pool.strata
    _, one, of = np.unique(together, return_index=True, return_inverse=True)
    small, n_small = _smallest_class(strata[one])
    if folds is None:
        folds = int(np.clip(n_small, 2, FOLDS))
    if not pool.multi_label and n_small < folds:
        raise UsageError(
            f"--folds {folds}: {pool.dataset} has {n_small} images of {pool.classes[small]} that "
            f"are no twins; use at most --folds {max(2, n_small)}, or leave the class out"
        )
    if len(one) < folds:
        raise UsageError(f"--folds {folds}: {pool.dataset} has only {len(one)} groups of images")
    found = np.empty(len(pool), np.int64)
    if pool.groups is None:  # only twins: few and small, so that any of them stands for all
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        of_group = np.empty(len(one), np.int64)
        for fold, (_, held_out) in enumerate(splitter.split(one, strata[one])):
            of_group[held_out] = fold
        return np.asarray(of_group[of])
    grouped = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(grouped.split(strata, strata, together)):
        found[held_out] = fold
    return found


def _smallest_class(strata: np.ndarray) -> tuple[int, int]:
    """Return the class of the fewest images that has any, and how many these are."""
    classes, counts = np.unique(strata, return_counts=True)
    return int(classes[counts.argmin()]), int(counts.min())


def out_of_fold(
    features: np.ndarray, targets: np.ndarray, fold: np.ndarray, *, multi_label: bool
) -> np.ndarray:
    """Return the probabilities that linear probes give images which they were not fitted on.

    Logistic regression (softmax, or a sigmoid per label) with an L2 penalty on standardised
    features; the folds differ in which rows count, so one pass over the features serves them all.

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
    spread = features.std(0, dtype=np.float64)
    scaled = (features / np.maximum(spread, spread.max() * 1e-3 + 1e-30)).astype(np.float32)
    tried = [_fit(scaled, targets, fold, l2, multi_label=multi_label) for l2 in L2]
    return min(tried, key=lambda found: log_loss(found, targets, multi_label=multi_label))


def log_loss(probabilities: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """Return the mean cross-entropy of probabilities."""
    p = np.clip(probabilities, 1e-12, 1)
    loss = targets * np.log(p)
    if multi_label:
        loss = loss + (1 - targets) * np.log(np.clip(1 - probabilities, 1e-12, 1))
    return float(-loss.sum(1).mean())


def _fit(
    features: np.ndarray, targets: np.ndarray, fold: np.ndarray, l2: float, *, multi_label: bool
) -> np.ndarray:
    import torch
    from torch.nn import functional

    x, y = torch.from_numpy(features), torch.from_numpy(targets.astype(np.float32))
    (n, dim), n_classes, n_folds = x.shape, y.shape[1], int(fold.max()) + 1
    of = torch.from_numpy(fold)
    trains = (of[:, None] != torch.arange(n_folds)).float()
    trains /= trains.sum(0)
    weight = torch.zeros(dim, n_folds * n_classes, requires_grad=True)
    bias = torch.zeros(n_folds * n_classes, requires_grad=True)

    def logits() -> torch.Tensor:
        return (x @ weight + bias).view(n, n_folds, n_classes)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        told = logits()
        if multi_label:
            wanted = y[:, None].expand_as(told)
            each = functional.binary_cross_entropy_with_logits(told, wanted, reduction="none")
            each = each.sum(2)
        else:
            each = told.logsumexp(2) - torch.einsum("nkc,nc->nk", told, y)
        total = (each * trains).sum() + l2 / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )
    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        held_out = logits()[torch.arange(n), of].double()
        found: np.ndarray = (held_out.sigmoid() if multi_label else held_out.softmax(1)).numpy()
    return found
