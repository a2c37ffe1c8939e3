"""What the charts share: text that plotly shows as it is, and axes of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from medplus.reporting.palette import look_of

HOVER = "%{text}<extra></extra>"
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"}

_LONGEST = 26
"""Characters of a name beside an axis; a longer one would leave no room for the chart."""


def plain(text: str) -> str:
    """Return text that plotly, which reads some HTML in it, shows as it is."""
    return escape(text, quote=False)


def axis_labels(names: Sequence[str]) -> dict[str, str]:
    """Return what to write beside an axis, shortened in the middle where names stay distinct."""
    full = {name: look_of(name, names).label for name in names}
    short = {
        name: label if len(label) <= _LONGEST else f"{label[:14]}…{label[-11:]}"
        for name, label in full.items()
    }
    counts = Counter(short.values())
    return {
        name: plain(label if counts[label] == 1 else full[name]) for name, label in short.items()
    }


def categories(labels: Sequence[str]) -> dict[str, Any]:
    """Return an axis of names in the given order."""
    return {"type": "category", "categoryorder": "array", "categoryarray": list(labels)}
