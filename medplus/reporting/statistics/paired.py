"""Two sets of runs on the same test set, compared image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.errors import UsageError
from medplus.metrics import check, percentile_interval, replicates, resample_counts
from medplus.metrics.ranking import auc_of_classes, mean_of_defined
from medplus.reporting.statistics.ties import settle
from medplus.vocabulary import Task

Arrays = Mapping[str, NDArray[Any]]
"""What `medplus.runs.ledger.read_predictions` returns."""

N_RESAMPLES = 1000


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


class Pair:
    """Two ways to go on the same test images, to be compared on the same resamples of them.

    Each is one run or several seeds, whose scores are averaged. What makes an image hard makes it
    hard for both; on shared resamples that cancels, and the difference is known better than either
    score. Where the runs know groups, such as patients, these are drawn. The p-value is twice the
    share of resamples on the far side of zero, those at zero on both sides, with one more on each,
    so that it is never 0 [1]_.

    Parameters
    ----------
    first, second : sequence of mappings of str to ndarray
        Of each run `test_true` and `test_score`, see `medplus.metrics.check`; `test_index` is
        compared where both have it, and `test_group` holds the groups, if any.
    task : Task
        MedMNIST's task type.

    Attributes
    ----------
    n_images : int
        Size of the test set.

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

    def __init__(self, first: Sequence[Arrays], second: Sequence[Arrays], task: Task) -> None:
        reference = first[0]
        for run in (*first, *second):
            _refuse_unlike(reference, run)
        self._task = task
        self._groups = reference.get("test_group")
        self._sides = [
            [check(run["test_true"], run["test_score"], task) for run in runs]
            for runs in (first, second)
        ]
        one, other = (side[0].scores.shape[1] for side in self._sides)
        if one != other:
            raise _refusal(f"score {one} and {other} classes")
        self.n_images = self._sides[0][0].n_samples

    def accuracy(self, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Difference:
        """Return the difference of ACC; a sum over images, so that all resamples are one product.

        Parameters
        ----------
        n_resamples : int, default 1000
        seed : int, default 0
            Seed of the draws.
        """
        one, other = (
            np.mean([(cases.true == cases.predicted).mean(axis=1) for cases in side], axis=0)
            for side in self._sides
        )
        # Together with the size of a resample, which is not always the same where there are groups.
        summed = np.stack([one - other, np.ones(self.n_images)])
        blocks = resample_counts(self.n_images, n_resamples, seed, self._groups)
        gap, drawn = np.concatenate([summed @ counts.astype(np.float64) for counts in blocks], 1)
        return _difference(float((one - other).mean()), gap / drawn)

    def auc(self, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Difference:
        """Return the difference of AUC, which takes a hundred times as long.

        Parameters
        ----------
        n_resamples : int, default 1000
        seed : int, default 0
            Seed of the draws; resamples depend on it and on the number of images alone.
        """
        one, other = (
            np.mean([replicates(run, n_resamples, seed, self._groups).auc for run in side], axis=0)
            for side in self._sides
        )
        ours, theirs = (
            np.mean([mean_of_defined(auc_of_classes(run)) for run in side]) for side in self._sides
        )
        return _difference(float(ours - theirs), one - other)


def _difference(value: float, resampled: NDArray[np.float64]) -> Difference:
    defined = settle(100 * resampled[~np.isnan(resampled)])
    interval = percentile_interval(defined)
    if interval is None or np.isnan(value):
        return Difference(*[float("nan")] * 4)
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (1 + fewer) / (1 + len(defined)))
    return Difference(float(settle(100 * value)), *interval, p_value)


def _refuse_unlike(first: Arrays, second: Arrays) -> None:
    for run in (first, second):
        missing = [name for name in ("test_true", "test_score") if name not in run]
        if missing:
            raise UsageError(f"a run's predictions lack {' and '.join(missing)}; name a tested run")
    # A vector and a single column are the same labels.
    one, other = (run["test_true"].reshape(len(run["test_true"]), -1) for run in (first, second))
    index, theirs = first.get("test_index"), second.get("test_index")
    if len(one) != len(other):
        raise _refusal(f"were tested on {len(one)} images and {len(other)}")
    if index is not None and theirs is not None and not np.array_equal(index, theirs):
        raise _refusal("were tested on other images, or the same in another order (test_index)")
    if not np.array_equal(one, other):
        raise _refusal("were tested on images with other labels (test_true)")


def _refusal(difference: str) -> UsageError:
    return UsageError(f"the two runs {difference}; compare runs on the same test set only")
