"""The figure of corruptions: balanced error by severity, a panel for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medplus.analysis.drawing.sheet import MARGIN, WIDE, Key, Sheet
from medplus.analysis.drawing.style import short_names, signs
from medplus.analysis.results.robustness import Case, in_words

_LEFT, _TOP, _HEIGHT, _BELOW, _GAP, _COLUMNS = 12.0, 7.0, 30.0, 9.0, 4.0, 4


def draw_severities(cases: Mapping[str, Case]) -> Figure:
    """Draw the cases of one dataset, by their labels; severity 0 is the clean images."""
    corruptions = list(dict.fromkeys(n for case in cases.values() for n in case.corruptions))
    names = short_names(list(cases))
    drawn = signs(names)
    columns = min(_COLUMNS, len(corruptions))
    rows = -(-len(corruptions) // columns)
    width = (WIDE - _LEFT - MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
    key = Key(names, drawn)
    top = 2 + key.height
    sheet = Sheet(WIDE, top + rows * (_TOP + _HEIGHT + _BELOW) + MARGIN)
    key.put(sheet, 2)
    ceiling = _ceiling(list(cases.values()))
    for number, corruption in enumerate(corruptions):
        row, column = divmod(number, columns)
        axes = sheet.axes(
            _LEFT + column * (width + _GAP),
            top + _TOP + row * (_TOP + _HEIGHT + _BELOW),
            width,
            _HEIGHT,
        )
        axes.set_title(in_words(corruption))
        for label, case in cases.items():
            if case.of(corruption):
                _line(axes, case, corruption, drawn[label].style(), len(cases) <= 3)
        axes.set_xlim(-0.3, 5.3)
        axes.set_ylim(0, ceiling)
        axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
        axes.grid(axis="y")
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("balanced error, %")
        if row == rows - 1:
            axes.set_xlabel("severity")
    return sheet.figure


def _ceiling(cases: Sequence[Case]) -> float:
    highest = max(p.balanced_error for case in cases for p in case.found.points)
    clean = max(case.found.clean.balanced_error for case in cases)
    return min(100.0, 100 * max(highest, clean) * 1.15 + 1)


def _line(axes: Axes, case: Case, corruption: str, style: dict[str, object], band: bool) -> None:
    points = case.of(corruption)
    steps = [0, *(point.severity for point in points)]
    scores = [case.found.clean, *points]
    axes.plot(steps, [100 * one.balanced_error for one in scores], **style)  # type: ignore[arg-type]
    if band:
        low, high = ([100 * one.balanced_error_ci95[end] for one in scores] for end in (0, 1))
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.12, lw=0)
