"""Numbers as people read them; what is missing is a dash."""

from __future__ import annotations

import math

from medplus.reporting import format as fmt

MISSING = "–"
_MINUS = "−"


def percent(value: float) -> str:
    """Return a score in percent with two decimals, as the paper and the CSV files have it."""
    return fmt.percent(value).replace("-", _MINUS) or MISSING


def plus_minus(mean: float, std: float) -> str:
    """Return ``mean ± std``; the mean alone where there is no deviation."""
    return percent(mean) if _missing(mean) or _missing(std) else f"{percent(mean)} ± {percent(std)}"


def interval(low: float, high: float) -> str:
    """Return an interval's two bounds."""
    return MISSING if _missing(low) or _missing(high) else f"{percent(low)} to {percent(high)}"


def difference(value: float) -> str:
    """Return a difference with its sign."""
    text = percent(value)
    return f"+{text}" if value > 0 and text != "0.00" else text


def significant(value: float, digits: int = 3) -> str:
    """Return a number, as a p value, with so many significant digits."""
    return MISSING if _missing(value) else f"{value:.{digits}g}".replace("-", _MINUS)


def seconds(value: float) -> str:
    """Return a cost in seconds, three digits of it."""
    text = fmt.seconds(value)
    return f"{text} s" if text else MISSING


def whole(value: float) -> str:
    """Return a count."""
    return MISSING if _missing(value) else f"{int(value):,}"


def json_number(value: float) -> float | None:
    """Return a number for JSON, which knows no NaN."""
    return None if _missing(value) else round(float(value), 6)


def _missing(value: float) -> bool:
    return value is None or math.isnan(value)
