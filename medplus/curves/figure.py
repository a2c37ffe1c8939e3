"""The figure of a curve: accuracy by number of labels, one line per backbone and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import (
    MARGIN,
    WIDE,
    Sheet,
    backbone_handle,
    backbone_style,
    legend_height,
)
from medplus.analysis.drawing.style import GREY, look, short_names, signs
from medplus.curves.powerlaw import PowerLaw
from medplus.curves.summary import Series

_LEFT, _TOP, _HEIGHT, _BELOW, _GAP = 14.0, 9.0, 62.0, 12.0, 14.0
_KINDS = {"shots": "equally many images of each class", "fractions": "shares of train"}


def draw_curve(
    series: Sequence[Series], laws: Sequence[PowerLaw], title: str, target: float | None
) -> Figure:
    """Draw a panel per kind and protocol: means, 95 % intervals, fits as thin dashed lines.

    Parameters
    ----------
    series, laws : sequence
        In the same order.
    target : float or None
        A horizontal line.
    """
    panels = list(dict.fromkeys((one.kind, one.protocol) for one in series))
    names = short_names(list(dict.fromkeys(one.backbone for one in series)))
    drawn = signs(names)
    columns = min(2, len(panels))
    width = (WIDE - MARGIN - columns * _LEFT - (columns - 1) * 2) / columns
    rows = -(-len(panels) // columns)
    room = legend_height(list(names.values()), WIDE - _LEFT - MARGIN)
    with look():
        sheet = Sheet(WIDE, 6 + rows * (_TOP + _HEIGHT + _BELOW) + room + MARGIN)
        sheet.text(_LEFT, 2.5, title, fontsize=8)
        for number, (kind, protocol) in enumerate(panels):
            row, column = divmod(number, columns)
            axes = sheet.axes(
                _LEFT + column * (width + _LEFT + 2),
                6 + _TOP + row * (_TOP + _HEIGHT + _BELOW) - 2,
                width,
                _HEIGHT,
            )
            axes.set_title(f"{PROTOCOL_LABELS[protocol]}, {_KINDS[kind]}")
            ticks: set[int] = set()
            for one, law in zip(series, laws, strict=True):
                if (one.kind, one.protocol) == (kind, protocol):
                    _draw(axes, one, law, backbone_style(drawn[one.backbone]))
                    ticks |= set(one.n.tolist())
            _finish(axes, sorted(ticks), target)
        sheet.legend(
            _LEFT,
            6 + rows * (_TOP + _HEIGHT + _BELOW),
            WIDE - _LEFT - MARGIN,
            [(names[name], backbone_handle(drawn[name])) for name in names],
        )
    return sheet.figure


def _draw(axes: Axes, one: Series, law: PowerLaw, style: dict[str, Any]) -> None:
    mean, half = 100 * one.mean, 100 * one.half_widths
    known = np.isfinite(half)
    low, high = (mean - half)[known], (mean + half)[known]
    axes.fill_between(one.n[known], low, high, color=style["color"], alpha=0.18, lw=0)
    axes.plot(one.n, mean, label=one.label, **style)
    if np.isfinite(law.exponent):
        # What was refused is not carried beyond what was measured.
        n = np.geomspace(one.n[0], (3 if law.refused is None else 1) * one.n[-1], 100)
        fitted = 100 * (1 - law.error(n))
        axes.plot(n, fitted, color=style["color"], lw=0.7, ls=(0, (4, 2)), zorder=1)


def _finish(axes: Axes, ticks: Sequence[int], target: float | None) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("train images")
    axes.set_ylabel("test ACC, %")
    axes.grid(axis="y")
    if target is not None:
        axes.axhline(100 * target, color=GREY, lw=0.8, ls=":")
        axes.annotate(
            f"target {100 * target:g} %", (0.01, 100 * target), xycoords=axes.get_yaxis_transform(),
            ha="left", va="bottom", color=GREY, fontsize=6,
        )  # fmt: skip


def _apart(ticks: Sequence[int]) -> list[int]:
    """Return those ticks whose numbers do not touch on a logarithmic axis."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= 1.35 * kept[-1]:
            kept.append(tick)
    return kept
