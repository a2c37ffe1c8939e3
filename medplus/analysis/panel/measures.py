"""Numbers that groups of test images are compared by: ACC, AUC, sensitivity, specificity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.one_class import auc_estimate, one_against_rest
from medplus.metrics import check
from medplus.metrics.operating_points import Estimate, share
from medplus.metrics.ranking import placements

FEWEST = 20
"""Images below which a group is not shown."""
FEWEST_OF_CLASS = 5
"""Positives, and negatives, below which a rate or an AUC is not shown."""

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
    """

    name: str
    enough: Callable[[Rows], bool]
    value: Callable[[Rows], float]
    estimate: Callable[[Rows], Estimate]


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Return an estimate less another of other images, the interval made of theirs [1]_.

    References
    ----------
    .. [1] Newcombe: Interval estimation for the difference between independent proportions.
       Statistics in Medicine 17, 873-890 (1998), method 10.

    Examples
    --------
    >>> found = difference(Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.6))
    >>> [round(number, 3) for number in found]
    [0.3, 0.159, 0.441]
    """
    value = first.value - second.value
    below = np.hypot(first.value - first.low, second.high - second.value)
    above = np.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, float(value - below), float(value + above))


def measures_of(panel: Panel) -> list[Measure]:
    """Return ACC and AUC, and sensitivity and specificity where classes matter one by one."""
    cases = panel.cases
    of = partial(_share, panel.groups)
    everyone = np.ones(cases.n_samples, dtype=bool)
    found = [of("ACC", cases.true == cases.predicted, everyone, FEWEST), _auc(panel)]
    for one in panel.classes if panel.positive or cases.task == "binary-class" else ():
        target, _, called = one_against_rest(cases, panel.record.classes.index(one.name))
        whose = "" if panel.positive else f" for {one.name}"
        found.append(of(f"sensitivity{whose}", called, target, FEWEST_OF_CLASS))
        if panel.positive:
            found.append(of("specificity", ~called, ~target, FEWEST_OF_CLASS))
    return found


def _share(
    groups: NDArray[Any] | None,
    name: str,
    hits: NDArray[Any],
    eligible: NDArray[np.bool_],
    fewest: int,
) -> Measure:
    """Return the share of hits among those eligible."""

    def own(rows: Rows) -> Rows:
        return rows[eligible[rows]]

    def estimate(rows: Rows) -> Estimate:
        rows = own(rows)
        return share(hits[rows], None if groups is None else groups[rows])

    return Measure(
        name,
        lambda rows: int(eligible[rows].sum()) >= fewest,
        lambda rows: float(hits[own(rows)].mean()),
        estimate,
    )


def _auc(panel: Panel) -> Measure:
    """Return the AUC of the positive class against the rest, or the mean over all classes."""
    cases, groups = panel.cases, panel.groups
    if panel.positive:
        one = panel.classes[0]
        cases = check(one.target, one.score, "binary-class")

    def enough(rows: Rows) -> bool:
        n_positive = cases.targets[rows].sum(axis=0)
        return bool(np.minimum(n_positive, len(rows) - n_positive).min() >= FEWEST_OF_CLASS)

    def value(rows: Rows) -> float:
        # Every class has images and others here, or is not asked for.
        columns = zip(cases.targets[rows].T, cases.scores[rows].T, strict=True)
        return float(np.mean([placements(*column)[column[0]].mean() for column in columns]))

    def estimate(rows: Rows) -> Estimate:
        part = check(cases.true[rows], cases.scores[rows], cases.task)
        return auc_estimate(part, None if groups is None else groups[rows])

    return Measure("AUC", enough, value, estimate)
