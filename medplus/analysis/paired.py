"""Runs on the same test set, compared image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.holm import holm
from medplus.analysis.results.cells import KEYS
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Section
from medplus.analysis.table import Table
from medplus.errors import MedplusError, UsageError
from medplus.metrics import Predictions, check, percentile_interval, replicates, resample_counts
from medplus.metrics.ranking import auc_present
from medplus.naming import counted
from medplus.run.ledger import read_predictions
from medplus.vocabulary import Task

Arrays = Mapping[str, NDArray[Any]]
"""What `medplus.run.ledger.read_predictions` returns."""

N_RESAMPLES = 1000

_COLUMNS = (
    "dataset protocol size best second acc_difference low high p_value p_holm n_resamples n_images "
    "seeds chosen_on"
)


def paired(benchmark: Benchmark) -> Section | None:
    """Return the best against the second best; None without predictions, or without a second."""
    if benchmark.runs is None:
        return None
    rows, unreadable = best_against_second(benchmark.compared, benchmark.runs)
    if not len(rows) and not unreadable:
        return None
    caption = (
        "Best backbone less second best on the same test images: difference of ACC in percent "
        "points, with its 95 % bootstrap interval, and p as it is and corrected for the rows (Holm)"
    )
    note = (
        f"Not compared: {counted(unreadable, 'pair')} of backbones, where predictions cannot be "
        "read or are of other test images."
    )
    return Section(
        name="paired",
        title="Best against second best on the same images",
        short="Best and second",
        text="A paired bootstrap: both are scored on the same resamples of the test images, or of "
        "their patients where these are known, by the mean over their seeds. An interval that "
        "holds 0 means that these images cannot tell the two apart. The two are chosen on val "
        "where it is known; where they were chosen on test, by the scores that are compared, the "
        "difference is too large: for equal backbones too it is never negative.",
        tables=(Table.of("paired", caption, rows, _COLUMNS, hidden="n_resamples seeds"),),
        notes=(note,) if unreadable else (),
    )


def best_against_second(cells: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Compare the best backbone of each setting with the second best, image by image.

    The two are chosen on val, if all backbones of the setting were scored there. Chosen on test,
    the difference would never be negative: between equal ones on 200 images it is 1 to 3 points on
    average, though p stays below 0.05 in no more than 5 of 100 cases (both by simulation). p is
    also corrected for the number of settings, after Holm.

    Returns
    -------
    rows : pandas.DataFrame
        A row per dataset, protocol and size.
    unreadable : int
        Pairs whose predictions could not be read.
    """
    rows, unreadable = [], 0
    by_cell = dict(iter(runs.groupby(KEYS)))
    setting = ["dataset", "protocol", "size"]
    cells = cells.assign(val_mean=cells.get("val_mean", np.nan))
    for (dataset, protocol, size), group in cells.groupby(setting, sort=False):
        on_val = bool(group["val_mean"].notna().all())
        chosen_by = settle(group["val_mean" if on_val else "acc_mean"])
        best = list(group.loc[chosen_by.nlargest(2).index, "backbone"])
        if len(best) < 2:
            continue
        pair = [by_cell[dataset, protocol, name, size] for name in best]
        try:
            saved = [[read_predictions(Path(run)) for run in one["run"]] for one in pair]
            task = pair[0]["task"].iloc[0]
            first = saved[0][0]
            together = [[Pair(first, run, task) for run in runs_of] for runs_of in saved]
            right = [np.mean([one.right[1] for one in of_it], axis=0) for of_it in together]
            groups = first.get("test_group")
            acc = difference(right[0], right[1], N_RESAMPLES, groups=groups)
        except (MedplusError, KeyError, ValueError, IndexError):
            unreadable += 1
            continue
        seeds = "; ".join(str(seed) for seed in sorted(pair[0]["seed"].dropna()))
        rows.append(
            (dataset, protocol, size, *best, acc.value, acc.low, acc.high, acc.p_value,
             acc.p_value, N_RESAMPLES, len(right[0]), seeds, "val" if on_val else "test")
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=_COLUMNS.split())
    return table.assign(p_holm=holm(table["p_value"])), unreadable


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
    """Two runs on the same test images, to be compared on the same resamples of them.

    What makes an image hard makes it hard for both runs; on shared resamples that cancels, and the
    difference is known better than either score. The p-value is twice the share of resamples on
    the far side of zero, those at zero on both sides, with one more on each, so that it is never 0
    [1]_; and never below what a test of signs gives where the m images that differ all speak for
    one of the two, 2 / 2ᵐ, as resamples of few images say little of others. Where the runs know
    groups, such as patients, these are drawn.

    Parameters
    ----------
    first, second : mapping of str to ndarray
        `test_true` and `test_score`, see `medplus.metrics.check`; `test_index` is compared where
        both have it, and `test_group` holds the groups, if any.
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

    def __init__(self, first: Arrays, second: Arrays, task: Task) -> None:
        _refuse_unlike(first, second)
        self._task = task
        self._runs = [(run["test_true"], run["test_score"]) for run in (first, second)]
        self._groups = first.get("test_group")
        self._cases: list[Predictions] = [check(*run, task) for run in self._runs]
        one, other = (cases.scores.shape[1] for cases in self._cases)
        if one != other:
            raise _refusal(f"score {one} and {other} classes")
        self.n_images = self._cases[0].n_samples

    @property
    def right(self) -> list[NDArray[np.float64]]:
        """Of both runs, the share of labels that each image has right."""
        return [share_right(cases) for cases in self._cases]

    def accuracy(self, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Difference:
        """Return the difference of ACC.

        Parameters
        ----------
        n_resamples : int, default 1000
        seed : int, default 0
            Seed of the draws.
        """
        one, other = self.right
        return difference(one, other, n_resamples, seed, self._groups)

    def auc(self, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Difference:
        """Return the difference of AUC (`auc_present`), which takes a hundred times as long.

        Parameters
        ----------
        n_resamples : int, default 1000
        seed : int, default 0
            Seed of the draws; resamples depend on it and on the number of images alone.
        """
        one, other = (
            replicates(cases, n_resamples, seed, self._groups).auc for cases in self._cases
        )
        value = auc_present(*self._runs[0], self._task) - auc_present(*self._runs[1], self._task)
        unlike = np.any(self._cases[0].scores != self._cases[1].scores, axis=1)
        return _difference(value, one - other, _n_apart(unlike[None], self._groups))


def share_right(cases: Predictions) -> NDArray[np.float64]:
    """Return the share of labels that each image has right, shape (n_images,)."""
    shares: NDArray[np.float64] = (cases.true == cases.predicted).mean(axis=1)
    return shares


def difference(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    n_resamples: int,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
) -> Difference:
    """Return the difference of two means over the same images, by a paired bootstrap.

    It is a sum over images, so that all resamples are one product.

    Parameters
    ----------
    one, other : ndarray, shape (n_images,), float64
        Shares, as of seeds that have an image right.
    n_resamples, seed : int
    groups : ndarray, shape (n_images,), optional
        What is drawn whole, such as patients; a resample's size is then not always the same.
    """
    gaps = (one - other)[None]
    [resampled] = resampled_means(gaps, n_resamples, seed, groups)
    return _difference(float(gaps.mean()), resampled, _n_apart(gaps, groups))


def resampled_means(
    values: NDArray[np.float64],
    n_resamples: int,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Return the means over images of every resample, shape (n_rows, n_resamples).

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_images), float64
    n_resamples, seed, groups
        As for `difference`.
    """
    summed = np.vstack([values, np.ones(values.shape[1])])
    blocks = resample_counts(values.shape[1], n_resamples, seed, groups)
    *sums, drawn = np.concatenate([summed @ counts.astype(np.float64) for counts in blocks], axis=1)
    means: NDArray[np.float64] = np.reshape(sums, (len(values), n_resamples)) / drawn
    return means


def p_values(
    gaps: NDArray[np.float64], resampled: NDArray[np.float64], groups: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Return two-sided p of no difference, shape (n_rows,); see `Pair`.

    Parameters
    ----------
    gaps : ndarray, shape (n_rows, n_images), float64
        Differences of images.
    resampled : ndarray, shape (n_rows, n_resamples), float64
        Their `resampled_means`.
    groups : ndarray, shape (n_images,), optional
        As for `difference`.
    """
    return _two_sided_p(resampled, _n_apart(gaps, groups))


def _n_apart(gaps: NDArray[Any], groups: NDArray[Any] | None) -> NDArray[np.intp]:
    """Return how many images, or groups, differ at all, shape (n_rows,)."""
    if groups is not None:
        names, unit = np.unique(groups, return_inverse=True)
        gaps = np.reshape([np.bincount(unit, row) for row in gaps], (len(gaps), len(names)))
    apart: NDArray[np.intp] = np.count_nonzero(settle(gaps.astype(np.float64)), axis=1)
    return apart


def _two_sided_p(resampled: NDArray[np.float64], n_apart: NDArray[np.intp]) -> NDArray[np.float64]:
    fewer = np.minimum((resampled <= 0).sum(axis=-1), (resampled >= 0).sum(axis=-1))
    p = np.maximum(2 * (1 + fewer) / (1 + resampled.shape[-1]), np.exp2(1.0 - n_apart))
    return np.asarray(np.minimum(1.0, p))


def _difference(
    value: float, resampled: NDArray[np.float64], n_apart: NDArray[np.intp]
) -> Difference:
    defined = settle(100 * resampled[~np.isnan(resampled)])
    interval = percentile_interval(defined)
    if interval is None or np.isnan(value):
        return Difference(*[float("nan")] * 4)
    return Difference(
        float(settle(100 * value)), *interval, float(_two_sided_p(defined[None], n_apart)[0])
    )


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
