"""Numbers that groups of test images are compared by: ACC, AUC, sensitivity, specificity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.one_class import one_against_rest
from medplus.metrics import check, percentile_interval, replicates
from medplus.metrics.operating_points import Estimate, proportion

FEWEST = 20
"""Images below which a group is not shown."""
FEWEST_OF_CLASS = 5
"""Positives, and negatives, below which a rate or an AUC is not shown."""
_RESAMPLES = 1000

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """A number that groups are compared by.

    Attributes
    ----------
    name : str
    enough : callable
        Whether rows are enough for it.
    value, estimate : callable
        The number of some rows, and with its interval.
    difference : callable
        The number of some rows less that of others, with its interval: Newcombe's of shares [1]_,
        else the bootstrap's.

    References
    ----------
    .. [1] Newcombe: Interval estimation for the difference between independent proportions.
       Statistics in Medicine 17, 873-890 (1998).
    """

    name: str
    enough: Callable[[Rows], bool]
    value: Callable[[Rows], float]
    estimate: Callable[[Rows], Estimate]
    difference: Callable[[Rows, Rows], Estimate]


def measures_of(panel: Panel) -> list[Measure]:
    """Return ACC and AUC, and sensitivity and specificity where classes matter one by one."""
    cases = panel.cases
    hits = (cases.true == cases.predicted).mean(axis=1)
    found = [_share("ACC", hits, np.ones(len(hits), dtype=bool), FEWEST), _auc(panel)]
    for one in panel.classes if panel.positive or cases.task == "binary-class" else ():
        target, _, called = one_against_rest(cases, panel.record.classes.index(one.name))
        of = "" if panel.positive else f" for {one.name}"
        found.append(_share(f"sensitivity{of}", called, target, FEWEST_OF_CLASS))
        if panel.positive:
            found.append(_share("specificity", ~called, ~target, FEWEST_OF_CLASS))
    return found


def _share(name: str, hits: NDArray[Any], eligible: NDArray[np.bool_], fewest: int) -> Measure:
    """Return the mean of hits among those eligible, which are 0 and 1 but for several labels."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    def of(rows: Rows) -> NDArray[np.float64]:
        return np.asarray(hits[rows[eligible[rows]]], dtype=np.float64)

    def draws(rows: Rows, seed: int) -> NDArray[np.float64]:
        own = of(rows)
        picked = np.random.default_rng(seed).integers(0, len(own), (_RESAMPLES, len(own)))
        means: NDArray[np.float64] = own[picked].mean(axis=1)
        return means

    def estimate(rows: Rows) -> Estimate:
        own = of(rows)
        if np.isin(own, (0, 1)).all():
            return proportion(int(own.sum()), len(own))
        return _percentiles(float(own.mean()), draws(rows, 0))

    def difference(rows: Rows, others: Rows) -> Estimate:
        a, b = of(rows), of(others)
        value = float(a.mean() - b.mean())
        if not np.isin([*a, *b], (0, 1)).all():
            return _percentiles(value, draws(rows, 1) - draws(others, 2))
        counts = int(a.sum()), len(a), int(b.sum()), len(b)
        return Estimate(value, *map(float, confint_proportions_2indep(*counts, method="newcomb")))

    def enough(rows: Rows) -> bool:
        return int(eligible[rows].sum()) >= fewest

    return Measure(name, enough, lambda rows: float(of(rows).mean()), estimate, difference)


def _auc(panel: Panel) -> Measure:
    """Return the AUC of the positive class against the rest, or the mean over all classes."""
    from scipy.stats import rankdata

    cases = panel.cases
    if panel.positive:
        one = panel.classes[0]
        cases = check(one.target, one.score, "binary-class")

    def enough(rows: Rows) -> bool:
        n_positive = cases.targets[rows].sum(axis=0)
        return bool(np.minimum(n_positive, len(rows) - n_positive).min() >= FEWEST_OF_CLASS)

    def value(rows: Rows) -> float:
        # By Mann and Whitney's ranks; every class has images and others here, or is not asked for.
        targets = cases.targets[rows]
        ranks = rankdata(cases.scores[rows], axis=0)
        m, n = targets.sum(axis=0), (~targets).sum(axis=0)
        areas = ((ranks * targets).sum(axis=0) - m * (m + 1) / 2) / (m * n)
        return float(areas.mean())

    def draws(rows: Rows, seed: int) -> NDArray[np.float64]:
        part = check(cases.true[rows], cases.scores[rows], cases.task)
        return replicates(part, _RESAMPLES, seed).auc

    def estimate(rows: Rows) -> Estimate:
        return _percentiles(value(rows), draws(rows, 0))

    def difference(rows: Rows, others: Rows) -> Estimate:
        return _percentiles(value(rows) - value(others), draws(rows, 1) - draws(others, 2))

    return Measure("AUC", enough, value, estimate, difference)


def _percentiles(value: float, draws: NDArray[np.float64]) -> Estimate:
    return Estimate(value, *(percentile_interval(draws) or (np.nan, np.nan)))
