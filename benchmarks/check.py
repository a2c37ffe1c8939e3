"""Ratios of now against those that were recorded on this machine: what has become slower.

A ratio has a better direction, which its goal tells (``≤`` or ``≥``); one without a goal is not
judged. Worse is what lies outside the recorded range, widened by a tolerance, in the median.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Result

TOLERANCE = 0.10


@dataclass(frozen=True)
class Regression:
    """A ratio that has become worse than it was recorded."""

    name: str
    found: float
    worst_recorded: float


def regressions(
    results: Iterable[Result], recorded: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[Regression]:
    """Return the results that are worse than the recorded ones by more than a tolerance.

    Parameters
    ----------
    results : iterable of Result
        Measured now.
    recorded : mapping
        From the name of a result to its recorded ratios.
    """
    found = []
    for result in results:
        before = recorded.get(result.name)
        if not before or result.sense is None:
            continue
        limit = (
            max(before) * (1 + tolerance) if result.sense == "≤" else min(before) / (1 + tolerance)
        )
        worse = result.median > limit if result.sense == "≤" else result.median < limit
        if worse:
            worst = max(before) if result.sense == "≤" else min(before)
            found.append(Regression(result.name, result.median, worst))
    return found
