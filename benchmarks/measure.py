"""Timing two ways of doing the same work in turn, so that a noisy machine disturbs both alike."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes
    ----------
    name : str
        What is compared, as a quotient: ``numerator ÷ denominator``.
    ratios : list of float
        One per round.
    goal : str
        What the ratio should be, for example ``≥ 0.95``, or an empty string.
    detail : str
        The absolute medians, for orientation only.
    points : list of [float, float]
        For a growth: size and median cost, of which `ratios` are the slopes.
    """

    name: str
    ratios: list[float]
    goal: str
    detail: str
    points: list[list[float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The ratio to quote."""
        return statistics.median(self.ratios)

    @property
    def sense(self) -> str | None:
        """``≤`` or ``≥``, as the goal has it; None if it sets no bound on the ratio."""
        return self._bound[0] if self._bound else None

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self._bound is None:
            return None
        sense, bound = self._bound
        return self.median <= bound if sense == "≤" else self.median >= bound

    @property
    def _bound(self) -> tuple[str, float] | None:
        found = re.fullmatch(r"([≤≥]) ([\d.]+)", self.goal)
        return (found[1], float(found[2])) if found else None


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each way once per round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            taken = seconds(work)
            if number > 0:
                times[name].append(taken)
    return times


def growth(
    name: str, series: Mapping[int, list[float]], goal: str = "≤ 1.1", unit: str = "s"
) -> Result:
    """Return how costs grow with a size: the slopes of log cost over log size, round by round.

    Parameters
    ----------
    series : mapping
        From each size to its costs, one per round: seconds, or what `unit` says.
    """
    sizes = sorted(series)
    x = [math.log(size) for size in sizes]
    slopes = [
        statistics.linear_regression(x, [math.log(y) for y in round_]).slope
        for round_ in zip(*(series[size] for size in sizes), strict=True)
    ]
    points = [[float(size), statistics.median(series[size])] for size in sizes]
    first, last = (f"{cost:.3g} {unit} at {size:,.0f}" for size, cost in (points[0], points[-1]))
    detail = f"{first}, {last}"
    return Result(name, slopes, goal, detail, points)


def compare(
    name: str, above: list[float], below: list[float], goal: str, unit: str = "s"
) -> Result:
    """Return the round-by-round quotient of two series."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    detail = f"{statistics.median(above):.4g} {unit} ÷ {statistics.median(below):.4g} {unit}"
    return Result(name, ratios, goal, detail)
