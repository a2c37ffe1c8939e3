"""Two runs on the same test set, compared image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.errors import UsageError
from medplus.metrics import (
    Predictions,
    check,
    percentile_interval,
    replicates,
    resample_counts,
)
from medplus.metrics.ranking import auc_present
from medplus.reporting.statistics.ties import settle
from medplus.vocabulary import Task

Scored = tuple[ArrayLike, ArrayLike] | Mapping[str, NDArray[Any]]
"""(y_true, y_score), or what `medplus.runs.ledger.read_predictions` returns."""


@dataclass(frozen=True)
class Difference:
    """By how much the first run is better, in percent points; NaN where it is not defined.

    Attributes
    ----------
    value : float
    low, high : float
        95 % percentile interval over test samples.
    p_value : float
        Two-sided, of no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class PairedResult:
    """A paired comparison of two runs.

    Attributes
    ----------
    acc, auc : Difference
        First run minus second.
    n_images, n_resamples : int
        Size of the test set, and resamples of it.
    """

    acc: Difference
    auc: Difference
    n_images: int
    n_resamples: int


def paired_bootstrap(
    a: Scored, b: Scored, task: Task, n_resamples: int = 1000, seed: int = 0
) -> PairedResult:
    """Compare two runs on the same resamples of their common test set.

    What makes an image hard makes it hard for both runs; on shared resamples that cancels, and the
    difference is known better than either score. The p-value is twice the share of resamples on
    the far side of zero, those at zero on both sides, with one more on each, so that it is never 0
    [1]_.

    Parameters
    ----------
    a, b : tuple of (y_true, y_score), or mapping
        See `medplus.metrics.check`; or the arrays of `read_predictions`, whose `test_true`,
        `test_score` and, where both have it, `test_index` are compared.
    task : Task
        MedMNIST's task type.
    n_resamples : int, default 1000
        Number of resamples.
    seed : int, default 0
        Seed of the draws.

    Returns
    -------
    PairedResult
        Differences of ACC and AUC (`auc_present`).

    Raises
    ------
    UsageError
        If the runs were not tested on the same images in the same order.
    RunError
        If labels and scores do not belong together.

    References
    ----------
    .. [1] Davison & Hinkley, "Bootstrap methods and their application", Cambridge 1997, section
       4.4.
    """
    cases_a, cases_b = _checked(a, b, task)
    # Resamples depend on the number of images and the seed alone: both runs are given the same.
    one, other = (replicates(cases, n_resamples, seed) for cases in (cases_a, cases_b))
    acc = [float((cases.true == cases.predicted).mean()) for cases in (cases_a, cases_b)]
    auc = [auc_present(*_test_set(scored)[:2], task) for scored in (a, b)]
    return PairedResult(
        acc=_difference(acc[0] - acc[1], one.acc - other.acc),
        auc=_difference(auc[0] - auc[1], one.auc - other.auc),
        n_images=cases_a.n_samples,
        n_resamples=n_resamples,
    )


def paired_accuracy(
    a: Scored, b: Scored, task: Task, n_resamples: int = 1000, seed: int = 0
) -> tuple[Difference, int]:
    """Compare the ACC of two runs alone: what `paired_bootstrap` says of it, without its AUC.

    An accuracy is a sum over images, so that all resamples are one product; an AUC of a large
    test set takes a hundred times as long.

    Parameters and errors are those of `paired_bootstrap`.

    Returns
    -------
    difference : Difference
    n_images : int
    """
    cases_a, cases_b = _checked(a, b, task)
    ahead = _hits(cases_a) - _hits(cases_b)
    blocks = resample_counts(cases_a.n_samples, n_resamples, seed)
    resampled = np.concatenate([ahead @ counts.astype(np.float64) for counts in blocks])
    return _difference(float(ahead.mean()), resampled / len(ahead)), len(ahead)


def _hits(cases: Predictions) -> NDArray[np.float64]:
    """Return the share of each image's labels that is right."""
    right: NDArray[np.float64] = (cases.true == cases.predicted).mean(axis=1)
    return right


def _difference(value: float, resampled: NDArray[np.float64]) -> Difference:
    defined = settle(100 * resampled[~np.isnan(resampled)])
    interval = percentile_interval(defined)
    if interval is None or np.isnan(value):
        return Difference(*[float("nan")] * 4)
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (1 + fewer) / (1 + len(defined)))
    return Difference(float(settle(100 * value)), *interval, p_value)


_Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]


def _test_set(scored: Scored) -> _Arrays:
    if isinstance(scored, Mapping):
        missing = [name for name in ("test_true", "test_score") if name not in scored]
        if missing:
            raise UsageError(f"a run's predictions lack {' and '.join(missing)}; name a tested run")
        return scored["test_true"], scored["test_score"], scored.get("test_index")
    true, score = scored
    return np.asarray(true), np.asarray(score), None


def _checked(a: Scored, b: Scored, task: Task) -> tuple[Predictions, Predictions]:
    """Return the predictions of two runs on the same images and classes; refuse all others."""
    (true_a, score_a, index_a), (true_b, score_b, index_b) = _test_set(a), _test_set(b)
    if len(true_a) != len(true_b):
        difference = f"were tested on {len(true_a)} images and {len(true_b)}"
    elif index_a is not None and index_b is not None and not np.array_equal(index_a, index_b):
        difference = "were tested on other images, or the same in another order (test_index)"
    elif not np.array_equal(_column(true_a), _column(true_b)):
        difference = "were tested on images with other labels (test_true)"
    else:
        first, second = check(true_a, score_a, task), check(true_b, score_b, task)
        if first.scores.shape == second.scores.shape:
            return first, second
        difference = f"score {first.scores.shape[1]} and {second.scores.shape[1]} classes"
    raise UsageError(f"the two runs {difference}; compare runs on the same test set only")


def _column(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as a table; a vector and a single column are the same labels."""
    return labels[:, None] if labels.ndim == 1 else labels
