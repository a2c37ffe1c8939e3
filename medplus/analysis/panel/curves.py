"""Curves of a panel as matplotlib axes, one function each, and the two sheets that show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import wraps
from itertools import cycle
from typing import Any, Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medplus.analysis.drawing.heatmap import SEQUENTIAL, draw_panels
from medplus.analysis.drawing.heatmap import Panel as Cells
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, legend_height, text_width
from medplus.analysis.drawing.style import FAINT, GREY, INK, SMALL, look
from medplus.analysis.format import one_line
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.one_class import AS_PREDICTED, THRESHOLDS, ClassPanel
from medplus.metrics.calibration import Reliability
from medplus.metrics.decision_curve import net_benefit_of_all
from medplus.metrics.operating_points import share
from medplus.naming import in_percent

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a43792", "#8a6d00", "#1292ff")
"""Of classes, in their order; they begin again, dashed, after the last."""
_DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)))
_MOST_ALONE = 2
_NAMED = 24
"""Characters of a class's name in a figure."""
_CELL, _LEAST_SIDE = 8.0, 36.0
"""Millimetres of a confusion matrix."""


class Plot(Protocol):
    """Draws a panel into axes, its own where none are given, and returns them."""

    def __call__(self, panel: Panel, ax: Axes | None = None) -> Axes: ...  # noqa: D102


def _plot(draw: Any) -> Plot:
    """Make a function that fills axes one that also makes them, in the report's style."""

    @wraps(draw)
    def plot(panel: Panel, ax: Axes | None = None) -> Axes:
        with look():
            own = ax is None
            axes = Sheet(80, 80).axes(14, 10, 62, 58) if ax is None else ax
            draw(panel, axes)
            if own and axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=SMALL, loc="best", handlelength=1.5)
        return axes

    return plot


@_plot
def plot_roc(panel: Panel, ax: Axes) -> None:
    """Draw sensitivity over 1 − specificity, with the points that the run itself decides at.

    Parameters
    ----------
    panel : Panel
    ax : matplotlib Axes, optional
        Its own by default; returned.
    """
    ax.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
    for one, style in _styles(panel):
        fpr, tpr = one.roc()
        label = f"{_name(one)}: AUC {100 * one.auc.value:.1f}"
        ax.plot(fpr, tpr, label=label, drawstyle="steps-post", **style)
        point = one.points[AS_PREDICTED]
        place = 1 - point.specificity.value, point.sensitivity.value
        ax.plot(*place, marker="o", markersize=4, color=style["color"], linestyle="none")
    _unit(ax, "1 − specificity", "sensitivity", "ROC")


@_plot
def plot_precision_recall(panel: Panel, ax: Axes) -> None:
    """Draw PPV over sensitivity, at the prevalence of the test images.

    Parameters
    ----------
    panel : Panel
    ax : matplotlib Axes, optional
        Its own by default; returned.
    """
    for one, style in _styles(panel):
        recall, precision = one.precision_recall()
        label = f"{_name(one)}: average precision {100 * one.average_precision:.1f}"
        ax.axhline(one.target.mean(), color=style["color"], lw=0.6, alpha=0.5)
        ax.plot(recall, precision, label=label, drawstyle="steps-post", **style)
    _unit(ax, "sensitivity (recall)", "PPV (precision)", "Precision and recall")


@_plot
def plot_net_benefit(panel: Panel, ax: Axes) -> None:
    """Draw decision curves, with that of treating everybody beside each.

    Parameters
    ----------
    panel : Panel
    ax : matplotlib Axes, optional
        Its own by default; returned.
    """
    scaled = panel.temperature is not None
    ax.axhline(0, color=GREY, lw=0.8)
    highest = 0.0
    for one, style in _styles(panel):
        prevalence = float(one.target.mean())
        everybody = net_benefit_of_all(prevalence, THRESHOLDS)
        ax.plot(THRESHOLDS, everybody, color=style["color"], lw=0.6, alpha=0.6)
        ax.plot(THRESHOLDS, one.net_benefit(scaled=scaled), label=_name(one), **style)
        highest = max(highest, prevalence)
    _unit(ax, "threshold probability", "net benefit", "Decision curve (thin: treat all)")
    ax.set_ylim(-0.15 * highest, 1.05 * highest or 1)


def plot_reliability(panel: Panel, ax: Axes | None = None, *, scaled: bool = False) -> Axes:
    """Draw how often probabilities come true, with intervals.

    Of one or two classes, it is that of each; of more, that of whatever was predicted, and of
    several labels, that of all of them together.

    Parameters
    ----------
    panel : Panel
    ax : matplotlib Axes, optional
        Its own by default; returned.
    scaled : bool
        At the temperature that val asks for, not as predicted.
    """
    return _plot(_scaled_reliability if scaled else _reliability)(panel, ax)


def _reliability(panel: Panel, ax: Axes, scaled: bool = False) -> None:
    ax.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
    lines: list[tuple[str, Reliability, dict[str, Any]]]
    if len(panel.classes) > _MOST_ALONE:
        what = "all labels" if panel.confusion is None else "the predicted class"
        lines = [(what, panel.reliability(scaled=scaled), {"color": INK})]
    else:
        lines = [
            (_name(one), one.reliability(scaled=scaled), style) for one, style in _styles(panel)
        ]
    for name, found, style in lines:
        counts = zip(found.n_positive.tolist(), found.n.tolist(), strict=True)
        ends = [share(np.arange(n) < n_positive) for n_positive, n in counts]
        low, high = [end.low for end in ends], [end.high for end in ends]
        ax.vlines(found.predicted, low, high, color=style["color"], lw=0.7, alpha=0.6)
        ax.plot(found.predicted, found.observed, label=name, **style)
        size = 6 + 60 * found.n / found.n.sum()
        ax.scatter(found.predicted, found.observed, s=size, color=style["color"], linewidth=0)
    title = f"At temperature {panel.temperature:.2f}" if scaled else "As predicted"
    error = panel.calibration["scaled" if scaled else AS_PREDICTED]["ece"]
    _unit(ax, "predicted probability", "observed share", f"{title}: ECE {in_percent(error)}")


def _scaled_reliability(panel: Panel, ax: Axes) -> None:
    _reliability(panel, ax, scaled=True)


@_plot
def plot_confusion(panel: Panel, ax: Axes) -> None:
    """Draw the confusion matrix: counts, and in colour their share of the true class.

    Parameters
    ----------
    panel : Panel
        Of a task with one label per image.
    ax : matplotlib Axes, optional
        Its own by default; returned.
    """
    counts = panel.confusion
    assert counts is not None
    of_true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, of_true, out=np.full(counts.shape, np.nan), where=of_true > 0)
    names = _class_names(panel)
    texts = [[str(count) for count in row] for row in counts]
    draw_panels(ax, [Cells("", names, shares, texts)], names, SEQUENTIAL)
    ax.set(xlabel="predicted", ylabel="true")
    ax.tick_params(axis="x", labelrotation=90 if _turned(names) else 0)


def draw_curves(panel: Panel) -> Figure:
    """Return a sheet with ROC, precision and recall, and decision curve."""
    return _sheet(panel, [plot_roc, plot_precision_recall, plot_net_benefit])


def draw_calibration(panel: Panel) -> Figure:
    """Return a sheet with reliability as predicted and, where val asks for a temperature, at it."""
    scaled = [] if panel.temperature is None else [_plot(_scaled_reliability)]
    plots = [plot_reliability, *scaled]
    return _sheet(panel, plots, legend=len(panel.classes) <= _MOST_ALONE)


def draw_confusion(panel: Panel) -> Figure:
    """Return a sheet with the confusion matrix; its task has one label per image."""
    names = _class_names(panel)
    beside = text_width(names) + 2
    side = max(_CELL * len(names), _LEAST_SIDE)
    below = beside if _turned(names) else LINE
    with look():
        sheet = Sheet(WIDE, MARGIN + side + below + LINE + MARGIN)
        plot_confusion(panel, sheet.axes(MARGIN + LINE + beside, MARGIN, side, side))
    return sheet.figure


def _turned(names: Sequence[str]) -> bool:
    """Tell whether names are too long to stand below their columns."""
    return text_width(names) + 2 > max(_CELL, _LEAST_SIDE / len(names))


def _sheet(panel: Panel, plots: Sequence[Plot], *, legend: bool = True) -> Figure:
    entries = list(_legend(panel)) if legend else []
    left, side, gap, below = 12.0, 44.0, 15.0, 11.0
    top = MARGIN + legend_height([label for label, _ in entries], WIDE - 2 * MARGIN) + LINE + 2
    with look():
        sheet = Sheet(WIDE, top + side + below)
        if entries:
            sheet.legend(MARGIN, MARGIN, WIDE - 2 * MARGIN, entries)
        for i, plot in enumerate(plots):
            plot(panel, sheet.axes(left + i * (side + gap), top, side, side))
    return sheet.figure


def _legend(panel: Panel) -> Iterator[tuple[str, Artist]]:
    for one, style in _styles(panel):
        yield f"{_name(one)} ({one.n_positive} of {len(one.target)})", Line2D([], [], **style)


def _styles(panel: Panel) -> Iterator[tuple[ClassPanel, dict[str, Any]]]:
    """Yield the classes that have images, each with its line."""
    lines = cycle((colour, dash) for dash in _DASHES for colour in COLOURS)
    of = dict(zip(panel.record.classes, lines, strict=False))
    for one in panel.classes:
        if one.defined:
            colour, dash = of[one.name]
            yield one, {"color": colour, "linestyle": dash}


def _name(one: ClassPanel) -> str:
    return _short(one.name)


def _class_names(panel: Panel) -> list[str]:
    return [_short(name) for name in panel.record.classes]


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= _NAMED else f"{text[: _NAMED - 1]}…"


def _unit(ax: Axes, x: str, y: str, title: str) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, title=title)
    ax.tick_params(colors=GREY, labelcolor=INK)
