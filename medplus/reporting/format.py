"""Numbers and names as a report prints them, in each of its languages."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\symbol{34}",
    # After the end of a row these two would be taken for its argument, or for its star.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "ρ": r"$\rho$",
    "–": "--",
    "…": r"\ldots{}",
}

_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\`*[]|~$"}


def percent(value: float) -> str:
    """Return a number with two decimals; NaN is empty.

    Rounded as numpy does, which scales, rounds halves to even and scales back. The published
    averages are the ones of numpy's mean rounded in just this way, where many lie halfway.
    """
    if math.isnan(value):
        return ""
    rounded = float(np.round(value, 2))
    return f"{rounded if rounded else 0.0:.2f}"


def exact(value: float) -> str:
    """Return a number so that it can be read back exactly; NaN is empty."""
    return "" if math.isnan(value) else repr(float(value))


def p_value(value: float) -> str:
    """Return a p-value for a reader: two to four decimals, and a bound below 0.0001."""
    if math.isnan(value):
        return ""
    if value < 0.0001:
        return "<0.0001"
    decimals = 2 if value >= 0.095 else 3 if value >= 0.0095 else 4
    return f"{value:.{decimals}f}"


def seconds(value: float) -> str:
    """Return a duration with three significant digits, and never as a power of ten."""
    if math.isnan(value):
        return ""
    decimals = 0 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}"


def one_line(text: Any) -> str:
    """Return a text without line breaks and signs that nobody can see."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def latex(text: Any) -> str:
    """Return a text so that LaTeX prints it as it is."""
    # Two hyphens would become a dash.
    apart = re.sub("-(?=-)", "-\0", one_line(text))
    return "".join(_LATEX.get(c, c) for c in apart).replace("\0", "{}")


def markdown(text: Any) -> str:
    """Return a text so that Markdown shows it as it is, also in a cell of a table."""
    escaped = "".join(_MARKDOWN.get(c, c) for c in one_line(text))
    # Underscores within words mean nothing, and names of backbones are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)
