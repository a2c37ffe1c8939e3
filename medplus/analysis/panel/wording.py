"""How a panel writes its numbers: percent with one decimal, intervals in brackets."""

from __future__ import annotations

import math

from medplus.analysis.format import MISSING
from medplus.metrics.operating_points import Estimate


def one_decimal(share: float) -> str:
    """Return a share in percent.

    Examples
    --------
    >>> one_decimal(0.5714), one_decimal(-0.02)
    ('57.1', '−2.0')
    """
    return f"{100 * share:.1f}".replace("-", "−")


def rate(estimate: Estimate) -> str:
    """Return a share in percent with its interval, as tables have it; a dash if undefined.

    Examples
    --------
    >>> rate(Estimate(0.5714, 0.4221, 0.7088))
    '57.1 (42.2–70.9)'
    >>> rate(Estimate(0.1, -0.1, 0.3))
    '10.0 (−10.0 to 30.0)'
    """
    if math.isnan(estimate.value):
        return MISSING
    ends = between(estimate)
    return f"{one_decimal(estimate.value)} ({ends if '−' in ends else ends.replace(' to ', '–')})"


def percent(estimate: Estimate) -> str:
    """Return the same for a sentence: ``57.1 % (42.2 to 70.9)``."""
    return f"{one_decimal(estimate.value)} % ({between(estimate)})"


def between(estimate: Estimate) -> str:
    """Return the ends of an interval of shares, in percent."""
    return f"{one_decimal(estimate.low)} to {one_decimal(estimate.high)}"


def threshold(value: float) -> str:
    """Return a threshold; a dash where something else decided."""
    if math.isnan(value):
        return MISSING
    return "above all" if math.isinf(value) else f"{value:.3f}"
