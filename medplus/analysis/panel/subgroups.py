"""How a run does on groups of the test images, and whether the gap between them is chance.

Groups that are too small are named, never shown as numbers. The gap is that between the best and
the worst of the groups, which even chance sets apart; so beside its interval stands how often
random groups of the same sizes and classes lie as far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medplus.analysis.holm import holm
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.groups import Grouping
from medplus.analysis.panel.measures import FEWEST, Measure, Rows, difference, measures_of
from medplus.metrics.operating_points import UNDEFINED, Estimate
from medplus.metrics.predictions import Predictions

_DRAWS = 500
_WORK = 2e7


@dataclass(frozen=True)
class Group:
    """A group that is large enough.

    Attributes
    ----------
    name : str
    n, n_positive : int
        Images, and those of the positive class; None where none was named.
    measures : mapping of str to Estimate
        Undefined where the group has too few images of a class.
    """

    name: str
    n: int
    n_positive: int | None
    measures: Mapping[str, Estimate]


@dataclass(frozen=True)
class Gap:
    """The best group less the worst.

    Attributes
    ----------
    measure, best, worst : str
    difference : Estimate
        With the interval for these two groups.
    p_value : float
        How often random groups of the same sizes and classes lie as far apart.
    p_holm : float
        Corrected for all gaps that were looked at.
    """

    measure: str
    best: str
    worst: str
    difference: Estimate
    p_value: float
    p_holm: float = np.nan


@dataclass(frozen=True)
class Subgroups:
    """A run by the groups of one column.

    Attributes
    ----------
    by : str
    groups : tuple of Group
    too_small : tuple of (str, int)
        Names and sizes of those that are not shown.
    gaps : tuple of Gap
    """

    by: str
    groups: tuple[Group, ...]
    too_small: tuple[tuple[str, int], ...]
    gaps: tuple[Gap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "by": self.by,
            "groups": [
                {"group": one.name, "n": one.n, "n_positive": one.n_positive}
                | {name: found.to_dict() for name, found in one.measures.items()}
                for one in self.groups
            ],
            "too_small": [{"group": name, "n": n} for name, n in self.too_small],
            "gaps": [
                {name: value for name, value in vars(gap).items() if name != "difference"}
                | (gap.difference.to_dict() or {})
                for gap in self.gaps
            ],
        }


def subgroups(panel: Panel, groupings: Sequence[Grouping]) -> list[Subgroups]:
    """Return how a run does on the groups of every column.

    Parameters
    ----------
    panel : Panel
    groupings : sequence of Grouping
    """
    measures = list(measures_of(panel))
    found = [_subgroups(panel, measures, grouping) for grouping in groupings]
    return _corrected(found)


def _subgroups(panel: Panel, measures: Sequence[Measure], grouping: Grouping) -> Subgroups:
    shown = {name: rows for name, rows in grouping.members.items() if len(rows) >= FEWEST}
    groups = []
    for name, rows in shown.items():
        n_positive = int(panel.classes[0].target[rows].sum()) if panel.positive else None
        estimates = {m.name: m.estimate(rows) if m.enough(rows) else UNDEFINED for m in measures}
        groups.append(Group(name, len(rows), n_positive, estimates))
    small = tuple((name, len(rows)) for name, rows in grouping.members.items() if name not in shown)
    gaps = []
    for measure in measures:
        compared = {name: rows for name, rows in shown.items() if measure.enough(rows)}
        if len({measure.value(rows) for rows in compared.values()}) > 1:
            gaps.append(_gap(panel.cases, measure, compared))
    return Subgroups(grouping.by, tuple(groups), small, tuple(gaps))


def _gap(cases: Predictions, measure: Measure, groups: Mapping[str, Rows]) -> Gap:
    values = {name: measure.value(rows) for name, rows in groups.items()}
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    gap = difference(measure.estimate(groups[best]), measure.estimate(groups[worst]))
    p_value = _chance(cases, measure, list(groups.values()), gap.value)
    return Gap(measure.name, best, worst, gap, p_value)


def _chance(cases: Predictions, measure: Measure, groups: Sequence[Rows], gap: float) -> float:
    """Return how often groups lie as far apart once images of the same labels are exchanged."""
    rows = np.concatenate(groups)
    ends = np.cumsum([len(one) for one in groups])[:-1]
    _, label = np.unique(cases.true[rows], axis=0, return_inverse=True)
    strata = [np.flatnonzero(label.ravel() == one) for one in np.unique(label)]
    rng = np.random.default_rng(0)
    n_draws = int(np.clip(_WORK / (len(rows) * cases.targets.shape[1]), 200, _DRAWS))
    n_as_far = 0
    for _ in range(n_draws):
        dealt = rows.copy()
        for stratum in strata:
            dealt[stratum] = rng.permutation(rows[stratum])
        values = [measure.value(part) for part in np.split(dealt, ends)]
        n_as_far += max(values) - min(values) >= gap - 1e-12
    return (1 + n_as_far) / (1 + n_draws)


def _corrected(found: Sequence[Subgroups]) -> list[Subgroups]:
    """Correct the p-values of all gaps together, after Holm."""
    gaps = [gap for one in found for gap in one.gaps]
    corrected = iter(holm([gap.p_value for gap in gaps]))
    return [
        replace(one, gaps=tuple(replace(gap, p_holm=float(next(corrected))) for gap in one.gaps))
        for one in found
    ]
