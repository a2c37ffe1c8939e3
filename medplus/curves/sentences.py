"""What a curve says, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medplus.curves.powerlaw import PowerLaw
from medplus.curves.summary import Crossing, Series
from medplus.metrics.intervals import student_half
from medplus.naming import counted, in_percent


def of_law(series: Series, law: PowerLaw) -> str:
    """Say how many images the target needs, or why that cannot be said."""
    what = f"{series.label} ({series.kind})"
    if law.labels is None:
        return (
            f"{what}: how many reach {in_percent(law.target)} cannot be said, since {law.refused}."
        )
    assert law.labels_ci95 is not None
    low, high = law.labels_ci95
    interval = f"at least {_count(low)}" if high is None else f"{_count(low)} to {_count(high)}"
    beyond = law.labels > series.n[-1]
    where = f"beyond the {series.n[-1]:,} measured" if beyond else "within what was measured"
    return (
        f"{what}: {in_percent(law.target)} would need about {_count(law.labels)} train images "
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
            f"At {counted(left, 'further place')} curves cross that are not told apart there."
        )
    return said


def of_test(series: Sequence[Series], n_test: int) -> str:
    """Say what the test images' own number leaves open, by the normal approximation."""
    if any(one.ratio is not None for one in series):
        return (
            f"Intervals are over {len(series[0].accuracies)} folds, which share train images, with "
            f"the correction for that; together they test {n_test:,} images."
        )
    best = max(float(one.mean.max()) for one in series)
    half = 1.96 * math.sqrt(best * (1 - best) / n_test)
    return (
        f"Intervals are over episodes, all on the same {n_test:,} test images, whose number alone "
        f"leaves ±{100 * half:.1f} points open."
    )


def of_gain(series: Series) -> str:
    """Say what the largest amount has brought over the one that is nearest to half of it."""
    if len(series.n) < 2:
        return f"{series.label} ({series.kind}): there is one amount alone."
    first = int(np.abs(np.log(2 * series.n[:-1] / series.n[-1])).argmin())
    gain = series.accuracies[:, -1] - series.accuracies[:, first]
    width = student_half(gain[:, None], series.inflation[-1:])[0]
    known = "" if math.isnan(width) else (
        f", 95 % interval {100 * (gain.mean() - width):.1f} to {100 * (gain.mean() + width):.1f}"
    )  # fmt: skip
    before, after = in_percent(series.mean[first]), in_percent(series.mean[-1])
    return (
        f"{series.label} ({series.kind}): from {series.n[first]:,} to {series.n[-1]:,} train "
        f"images test ACC goes from {before} to {after} "
        f"({100 * gain.mean():+.1f} points{known})."
    )


def _count(number: float) -> str:
    """Return a number of images to two figures, as exact as a fit is."""
    if number < 1:
        return "1"
    digits = max(0, math.floor(math.log10(number)) - 1)
    return f"{round(number / 10**digits) * 10**digits:,}"
