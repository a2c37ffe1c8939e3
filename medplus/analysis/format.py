"""Numbers and names as a report prints them.

What has no value is empty in a file, and a dash where people read it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

MISSING = "–"
"""What readers see where there is no number; in CSV the cell is empty."""

_MINUS = "−"


def percent(value: float) -> str:
    """Return a number with two decimals; NaN is empty.

    Rounded as numpy does, which scales, rounds halves to even and scales back. The published
    averages are the ones of numpy's mean rounded in just this way, where many lie halfway.
    """
    if math.isnan(value):
        return ""
    rounded = float(np.round(value, 2))
    return f"{rounded if rounded else 0.0:.2f}"


def percentage(fraction: float | None) -> float:
    """Return a fraction in percent; NaN where there is none."""
    return float("nan") if fraction is None else 100 * float(fraction)


def exact(value: float) -> str:
    """Return a number so that it can be read back exactly; NaN is empty."""
    return "" if math.isnan(value) else repr(float(value))


def read_percent(value: float) -> str:
    """Return a number with two decimals and a typographic minus."""
    return percent(value).replace("-", _MINUS) or MISSING


def plus_minus(mean: float, std: float) -> str:
    """Return ``mean ± std``; the mean alone where there is no deviation."""
    texts = [read_percent(mean), read_percent(std)]
    return texts[0] if MISSING in texts else " ± ".join(texts)


def interval(low: float, high: float) -> str:
    """Return an interval's two bounds."""
    texts = [read_percent(low), read_percent(high)]
    return MISSING if MISSING in texts else " to ".join(texts)


def difference(value: float) -> str:
    """Return a difference with its sign."""
    text = read_percent(value)
    return f"+{text}" if value > 0 and text != "0.00" else text


def p_value(value: float) -> str:
    """Return a p-value for a reader: two to four decimals, and a bound below 0.0001."""
    if math.isnan(value):
        return ""
    if value < 0.0001:
        return "<0.0001"
    decimals = 2 if value >= 0.095 else 3 if value >= 0.0095 else 4
    return f"{value:.{decimals}f}"


def p_equals(value: float) -> str:
    """Return ``p = 0.04``, or ``p < 0.0001``."""
    text = p_value(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number, as a p value, with so many significant digits."""
    return MISSING if math.isnan(value) else f"{value:.{digits}g}".replace("-", _MINUS)


def seconds(value: float) -> str:
    """Return a duration with three significant digits, and never as a power of ten."""
    if math.isnan(value):
        return ""
    decimals = 0 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}"


def read_seconds(value: float) -> str:
    """Return a cost in seconds, three digits of it."""
    text = seconds(value)
    return f"{text} s" if text else MISSING


def first_upper(text: str) -> str:
    """Return a sentence's beginning; kNN keeps its small letter."""
    return text if text.startswith("kNN") else text[:1].upper() + text[1:]


def json_number(value: float) -> float | None:
    """Return a number for JSON, which knows no NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def one_line(text: Any) -> str:
    """Return a text without line breaks and signs that nobody can see."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
