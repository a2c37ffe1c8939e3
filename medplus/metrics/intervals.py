"""Confidence intervals of accuracy and AUC over test images, without resampling.

Both are score intervals: the values that the estimate does not contradict, with the variance at the
value asked about rather than at the estimate. That keeps them honest near 1, where an estimated
variance is 0. Wilson's interval of a proportion [1]_ is the best known; at its ends it follows
Brown, Cai and DasGupta [2]_. The AUC has Hanley and McNeil's variance [3]_, used so by Newcombe
[4]_. By how much the data depart from these models is estimated: by the variance of DeLong and
colleagues for the AUC [5]_, and, where samples come in clusters such as the images of a patient or
the labels of an image, by the variance between clusters, as Rao and Scott do for proportions [6]_
and Obuchowski for the AUC [7]_.

References
----------
.. [1] Wilson, "Probable inference, the law of succession, and statistical inference", JASA
   22(158), 1927.
.. [2] Brown, Cai & DasGupta, "Interval estimation for a binomial proportion", Statistical Science
   16(2), 2001, section 4.1.
.. [3] Hanley & McNeil, "The meaning and use of the area under a receiver operating characteristic
   (ROC) curve", Radiology 143(1), 1982.
.. [4] Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
   statistic. Part 2", Statistics in Medicine 25(4), 2006, method 5.
.. [5] DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated receiver
   operating characteristic curves", Biometrics 44(3), 1988.
.. [6] Rao & Scott, "A simple method for the analysis of clustered binary data", Biometrics 48(2),
   1992.
.. [7] Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53(2), 1997.
.. [8] Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
   Bulletin 2(6), 1946.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medplus.metrics.predictions import Predictions
from medplus.metrics.ranking import placements
from medplus.naming import counted

LEVEL = 0.95
Interval = tuple[float, float]

FEWEST = 5
"""Where a class has fewer images, or groups, on one side, the AUC's interval may not hold."""
_FEW = 3.5
"""Up to so many errors their number follows Poisson's distribution rather than a normal one."""
_STEPS = 50
"""Halvings of [0, 1] until an end of an interval is found to the last bit but two."""


def acc_interval(cases: Predictions, groups: ArrayLike | None = None) -> Interval:
    """Return the 95 % interval of the accuracy.

    Parameters
    ----------
    cases : Predictions
        Checked labels and scores.
    groups : array-like of shape (n_samples,), optional
        What each sample belongs to, such as a patient; samples of different groups are independent.

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> from medplus.metrics import check
    >>> cases = check([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8], "binary-class")
    >>> low, high = acc_interval(cases)
    >>> round(low, 2), round(high, 2)
    (0.3, 0.99)
    """
    return proportion_interval(cases.true == cases.predicted, groups)


def proportion_interval(hits: ArrayLike, groups: ArrayLike | None = None) -> Interval:
    """Return the 95 % interval of a share: Wilson's, of an effective number of trials.

    The trials are divided by the design effect: the variance between clusters over that of as many
    independent trials. Few errors tell little of it, so that half an error more is assumed to be in
    all trials of a cluster alike. Student's t stands for the normal distribution where there are
    groups.

    Parameters
    ----------
    hits : array-like of 0 and 1, shape (n_samples, n_trials)
        Trials of one sample need not be independent.
    groups : array-like of shape (n_samples,), optional
        See `acc_interval`.

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> low, high = proportion_interval([[1]] * 48)
    >>> round(low, 3), high
    (0.926, 1.0)
    """
    from scipy.special import gammaincinv

    table = np.asarray(hits, dtype=np.float64)
    n_trials, mean = table.size, float(table.mean())
    clusters = _Clusters.of(len(table), groups)
    between = clusters.variance((table - mean).sum(axis=1) / n_trials) * clusters.correction
    one_wrong = 0.5 / n_trials * (1 - 0.5 / n_trials) / n_trials
    assumed = clusters.size * table.shape[1] * one_wrong
    effect = (between + assumed) / (mean * (1 - mean) / n_trials + one_wrong)
    n = n_trials / effect
    low, high = _uncontradicted(mean, lambda share: share * (1 - share) / n, clusters.quantile())
    fewer = min(mean, 1 - mean)
    if 0 < n * fewer <= _FEW:
        end = float(gammaincinv(n * fewer, 1 - LEVEL)) / n
        return (min(low, end), high) if fewer == mean else (low, max(high, 1 - end))
    return low, high


def auc_interval(cases: Predictions, groups: ArrayLike | None = None) -> Interval | None:
    """Return the 95 % interval of the AUC, averaged over the classes or labels that have one.

    An image's placements, the shares of the other side that it is on the right side of, say what
    it brings to the AUC of each class, and so to their mean: the variance of the mean takes in that
    classes share images [5]_. Over Hanley and McNeil's variance of as many independent classes it
    is the factor by which these are multiplied at every value asked about. Of scores that are
    nearly all in order it is not known, so that half an image more in the wrong place is assumed to
    be in all of a cluster alike. Student's t has the degrees of freedom that the variance is known
    with [8]_.

    Parameters
    ----------
    cases : Predictions
        Checked labels and scores.
    groups : array-like of shape (n_samples,), optional
        See `acc_interval`.

    Returns
    -------
    low, high : float
        None where no class has both positives and negatives.

    Examples
    --------
    >>> from medplus.metrics import check
    >>> cases = check([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.8], "binary-class")
    >>> low, high = auc_interval(cases)
    >>> 0 <= low < 0.75 < high <= 1
    True
    """
    positives = cases.targets.sum(axis=0)
    defined = (positives > 0) & (positives < cases.n_samples)
    if not defined.any():
        return None
    sides = np.stack([positives, cases.n_samples - positives])[:, defined]
    clusters = _Clusters.of(cases.n_samples, groups)
    auc, brought, alone = _delong(cases, defined, sides, clusters)

    def model(value: float | NDArray[np.float64]) -> float:
        return float(_hanley_mcneil(value, sides).sum() / sides.shape[1] ** 2)

    one_wrong = model(1 - 0.5 / (sides.min(axis=0) + 1))
    assumed = clusters.size * one_wrong
    variance = clusters.variance(brought) + alone + assumed
    effect = variance / (model(auc) + one_wrong)
    doubt = clusters.variance_of_variance(brought)
    quantile = clusters.quantile(2 * variance**2 / doubt if doubt > 0 else np.inf)
    return _uncontradicted(auc, lambda value: effect * model(value), quantile)


def student_half(values: ArrayLike, factor: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Return half of Student's 95 % interval of the mean over axis 0, times a factor.

    Parameters
    ----------
    values : array-like of float, shape (n, …)
    factor : array-like of float
        By how much the spread of the values falls short of that of independent ones.

    Returns
    -------
    ndarray of float64, shape (…)
        NaN of a single row, and where the factor is infinite.

    Examples
    --------
    >>> round(float(student_half([1.0, 2.0, 3.0])), 3)
    2.484
    """
    from scipy.special import stdtrit

    known = np.asarray(values, dtype=np.float64)
    n = len(known)
    if n < 2:
        return np.full(known.shape[1:], np.nan)
    finite = np.where(np.isfinite(factor), factor, np.nan)
    quantile = stdtrit(n - 1, (1 + LEVEL) / 2)
    return np.asarray(quantile * known.std(axis=0, ddof=1) * finite / np.sqrt(n))


def known_to_undercover(
    cases: Predictions, groups: ArrayLike | None = None, classes: Sequence[str] = ()
) -> str | None:
    """Return why the AUC's interval may hold the truth in fewer than 92 of 100 cases, or None.

    By simulation, see ``docs/statistics.md``: that of the accuracy always does.

    Parameters
    ----------
    cases : Predictions
    groups : array-like of shape (n_samples,), optional
        See `acc_interval`.
    classes : sequence of str, optional
        Their names; by default numbers from 0.

    Examples
    --------
    >>> from medplus.metrics import check
    >>> cases = check([1, 0, 0, 0, 0, 0], [0.9, 0.1, 0.2, 0.1, 0.4, 0.3], "binary-class")
    >>> known_to_undercover(cases)
    'class 1 has 1 image on one side; the 95 % interval of the AUC may cover less than 92 %'
    """
    clusters = _Clusters.of(cases.n_samples, groups)
    fewest = {
        problem: min(clusters.count(target), clusters.count(~target))
        for problem, target in enumerate(cases.targets.T)
    }
    few = {problem: n for problem, n in fewest.items() if 0 < n < FEWEST}
    if not few:
        return None
    rarest = min(few, key=few.__getitem__)
    n, unit = few[rarest], "image" if groups is None else "group"
    number = 1 if len(fewest) == 1 else rarest
    name = f"'{classes[number]}'" if classes else str(number)
    return (
        f"class {name} has {counted(n, unit)} on one side; the 95 % interval of the AUC may "
        "cover less than 92 %"
    )


def _delong(
    cases: Predictions, defined: NDArray[np.bool_], sides: NDArray[np.int64], clusters: _Clusters
) -> tuple[float, NDArray[np.float64], float]:
    """Return the mean AUC, what each sample brings to it, and the variance that this leaves out.

    A side of one sample, or one group, has no variance of its own: that of its AUC is modelled.
    """
    brought, alone, aucs = np.zeros(cases.n_samples), 0.0, []
    for problem, side in zip(np.flatnonzero(defined), sides.T, strict=True):
        target = cases.targets[:, problem]
        place = placements(target, cases.scores[:, problem])
        aucs.append(float(place[target].mean()))
        n_clusters = np.array([clusters.count(target), clusters.count(~target)])
        if n_clusters.min() == 1:
            alone += clusters.size * float(_hanley_mcneil(aucs[-1], side))
            continue
        weight = np.sqrt(n_clusters / (n_clusters - 1)) / side
        brought += (place - aucs[-1]) * np.where(target, *weight)
    n_problems = len(aucs)
    return float(np.mean(aucs)), brought / n_problems, alone / n_problems**2


def _hanley_mcneil(
    auc: float | NDArray[np.float64], sides: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the variance of AUCs; `sides` holds positives and negatives, shape (2, n_problems)."""
    others = sides.sum(axis=0) / 2 - 1
    wrong = 1 - auc
    alike = others * (wrong / (2 - auc) + auc / (1 + auc))
    return np.asarray(auc * wrong * (1 + alike) / sides.prod(axis=0), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Clusters:
    """What is independent: the groups of samples, or else the samples.

    Attributes
    ----------
    group : ndarray of int64, shape (n_samples,), or None
    size : float
        Samples in the group of a sample, on average.
    """

    group: NDArray[np.int64] | None
    size: float

    @classmethod
    def of(cls, n_samples: int, groups: ArrayLike | None) -> _Clusters:
        if groups is None:
            return cls(None, 1.0)
        _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        return cls(group, float((sizes**2).sum() / n_samples))

    @property
    def correction(self) -> float:
        if self.group is None:
            return 1.0
        n_groups = int(self.group.max()) + 1
        return n_groups / max(n_groups - 1, 1)

    def count(self, members: NDArray[np.bool_]) -> int:
        return int(members.sum() if self.group is None else len(np.unique(self.group[members])))

    def _sums(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        return shares if self.group is None else np.bincount(self.group, shares).astype(np.float64)

    def variance(self, shares: NDArray[np.float64]) -> float:
        """Return the variance of the sum of what samples bring, which is 0 in all."""
        return float((self._sums(shares) ** 2).sum())

    def variance_of_variance(self, shares: NDArray[np.float64]) -> float:
        squares = self._sums(shares) ** 2
        return float(((squares - squares.mean()) ** 2).sum())

    def quantile(self, freedom: float = np.inf) -> float:
        from scipy.special import ndtri, stdtrit

        if self.group is not None:
            freedom = min(freedom, float(self.group.max()))
        if not np.isfinite(freedom):
            return float(ndtri((1 + LEVEL) / 2))
        return float(stdtrit(max(freedom, 1.0), (1 + LEVEL) / 2))


def _uncontradicted(
    estimate: float, variance: Callable[[float], float], quantile: float
) -> Interval:
    """Return the ends of the values that lie within `quantile` standard errors of the estimate."""

    def end(outside: float) -> float:
        inside = estimate
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            if abs(estimate - middle) <= quantile * variance(middle) ** 0.5:
                inside = middle
            else:
                outside = middle
        return inside

    return end(0.0), end(1.0)
