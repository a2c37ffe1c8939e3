"""What a curve says, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medplus.curves.powerlaw import PowerLaw
from medplus.curves.summary import Crossing, Series


def of_law(series: Series, law: PowerLaw) -> str:
    """Say how many images the target needs, or why that cannot be said."""
    what = f"{series.label} ({series.kind})"
    if law.labels is None:
        return f"{what}: no answer for {law.target:.1%}, since {law.refused}."
    assert law.labels_ci95 is not None
    low, high = law.labels_ci95
    interval = f"at least {_count(low)}" if high is None else f"{_count(low)} to {_count(high)}"
    beyond = law.labels > series.n[-1]
    where = f"beyond the {series.n[-1]:,} measured" if beyond else "within what was measured"
    return (
        f"{what}: {law.target:.1%} would need about {_count(law.labels)} train images "
        f"(95 % interval: {interval}), {where}."
    )


def of_crossings(crossings: Sequence[Crossing]) -> list[str]:
    """Say where curves change places, and how often that is no more than chance."""
    said = [
        f"{one.second} overtakes {one.first} between {one.between[0]:,} and {one.between[1]:,} "
        f"train images, at about {_count(one.at)}."
        for one in crossings
        if one.certain
    ]
    left = len(crossings) - len(said)
    if left:
        said.append(
            f"At {left} further place{'s' * (left > 1)} curves cross that are not told apart there."
        )
    return said


def of_test(series: list[Series], n_test: int) -> str:
    """Say what the test split's own size leaves open, by the normal approximation."""
    best = max(float(one.mean.max()) for one in series)
    half = 1.96 * math.sqrt(best * (1 - best) / n_test)
    return (
        f"Intervals are over episodes, all on the same {n_test:,} test images, whose number alone "
        f"leaves ±{100 * half:.1f} points open."
    )


def _count(number: float) -> str:
    """Return a number of images to two figures, as exact as a fit is."""
    if number < 1:
        return "1"
    digits = max(0, math.floor(math.log10(number)) - 1)
    return f"{round(number / 10**digits) * 10**digits:,}"
