"""What the charts share: text that plotly shows as it is, axes, and traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from medplus.reporting.format import json_numbers
from medplus.reporting.palette import look_of

HOVER = "%{text}<extra></extra>"
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"}
GREY = "#808080"

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


def categories(labels: Iterable[str]) -> dict[str, Any]:
    """Return an axis of names in the given order."""
    return {"type": "category", "categoryorder": "array", "categoryarray": list(labels)}


NAMES_DOWN = {"type": "category", "autorange": "reversed"}
"""An axis of names, the first on top."""


def titled(text: str, **axis: Any) -> dict[str, Any]:
    """Return an axis under a title."""
    return {"title": {"text": text}, **axis}


def scatter(x: Iterable[float], y: Iterable[float], mode: str, **more: Any) -> dict[str, Any]:
    """Return a trace of points or lines."""
    return {"type": "scatter", "mode": mode, "x": json_numbers(x), "y": json_numbers(y), **more}


def line(x: Iterable[float], y: Iterable[float], width: float, **more: Any) -> dict[str, Any]:
    """Return a dotted grey line that has nothing to say."""
    style = {"color": GREY, "width": width, "dash": "dot", **more.pop("line", {})}
    return scatter(x, y, "lines", hoverinfo="skip", line=style, **more)


def named_points(
    values: Iterable[float], names: Sequence[str], backbones: Sequence[str], **more: Any
) -> dict[str, Any]:
    """Return a trace of one point per backbone, beside its name, with a bar to both sides."""
    looks = [look_of(name, backbones) for name in names]
    labels = axis_labels(backbones)
    return {
        **scatter(values, (), "markers"),
        "y": [labels[name] for name in names],
        "marker": {
            "size": 13,
            "color": [look.colour for look in looks],
            "symbol": [look.symbol for look in looks],
        },
        **more,
    }


def heatmap(x: Sequence[str], y: Sequence[str], z: Any, **more: Any) -> dict[str, Any]:
    """Return a trace of cells, whose colour scale the page knows by name."""
    return {"type": "heatmap", "x": x, "y": y, "z": z, "xgap": 2, "ygap": 2, "showscale": False,
            **more}  # fmt: skip
