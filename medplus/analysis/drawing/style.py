"""How figures look: sizes of text, greys, and how backbones are drawn and named."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import matplotlib

from medplus.analysis.drawing.palette import GROUND, Look, label_of, look_of
from medplus.analysis.format import one_line
from medplus.analysis.results.cells import order_backbones

INK, GREY, FAINT, MISSING, PAPER = "#1A1A1A", "#666666", "#E6E6E6", "#F2F2F2", GROUND
"""Text, what is beside it, grids, cells without a number, the ground. On the page they become its
own, light or dark; so nothing else may have these colours, and shades are transparent."""

SMALL, NORMAL, LARGE = 6.0, 7.0, 8.0
"""Sizes of text in points; figures are at most 180 mm wide, a page's two columns."""


_DOTTED = (0, (1.2, 1.2))


def signs(backbones: Iterable[str]) -> dict[str, Look]:
    """Return how each backbone is drawn.

    The colours and markers are those of the palette. Where it begins again, since it has only so
    many, the markers are dealt out anew, so that no two backbones look the same while there is a
    pair of colour and marker left.
    """
    ordered = order_backbones(backbones)
    looks = {name: look_of(name, ordered) for name in ordered}
    dealt = list(dict.fromkeys(look.marker for look in looks.values()))
    taken: set[tuple[str, str]] = set()
    chosen = {}
    for name, look in looks.items():
        free = (marker for marker in (look.marker, *dealt) if (look.colour, marker) not in taken)
        marker = next(free, look.marker)
        known = all(colour != look.colour for colour, _ in taken)
        taken.add((look.colour, marker))
        chosen[name] = replace(look, marker=marker, line="-" if known else _DOTTED)
    return chosen


_LONGEST = 28
"""Characters of a name in a figure."""


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return names as figures show them: of a long one, its beginning and its end.

    The paper's ten have their labels. What differs between long names mostly
    stands at one of their ends; names that would still become equal get a number.
    """
    shown: dict[str, str] = {}
    for name in names:
        text = one_line(label_of(name)) or "?"
        if len(text) > _LONGEST:
            head = (_LONGEST - 1) // 2
            text = f"{text[:head]}…{text[head + 1 - _LONGEST :]}"
        number, wanted = 2, text
        while text in shown.values():
            text = f"{wanted} ({number})"
            number += 1
        shown[name] = text
    return shown


def rank_ticks(n_backbones: int) -> list[int]:
    """Return the ranks that an axis names: the first, and of many some."""
    step = max(1, round(n_backbones / 12))
    return [1, *(rank for rank in range(2, n_backbones + 1) if rank % step == 0)]


@contextmanager
def look() -> Iterator[None]:
    """Draw within this: the reader's own settings do not matter, and names are no mathematics."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # in a name, say Chinese
        yield


_TICKS = {"color": GREY, "labelcolor": INK, "major.width": 0.6, "major.size": 2.5, "major.pad": 2}
_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "text.hinting": "no_hinting",  # quicker, and nobody sees it at 200 dpi
    "font.size": NORMAL,
    "axes.titlesize": LARGE,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": NORMAL,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in _TICKS.items()},
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.4,
    "legend.frameon": False,
    "legend.fontsize": NORMAL,
    "legend.handlelength": 2.4,
    "legend.borderaxespad": 0.0,
    "pdf.fonttype": 42,  # as journals ask for
    "svg.hashsalt": "medplus",
    "svg.fonttype": "none",  # smaller, quicker, and text that can be searched and edited
    "font.sans-serif": ["DejaVu Sans", "Arial"],
}
