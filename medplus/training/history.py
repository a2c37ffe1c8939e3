"""What happened in every epoch of a training: as a table, and as a picture."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from medplus import atomic
from medplus.datasets.columns import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
"""Of Okabe and Ito's palette, which colour-blind readers tell apart."""

_MOST_DRAWN = 1e30
_FEW_EPOCHS = 30
_LONGEST_TITLE = 160


@dataclass(frozen=True)
class EpochRow:
    """One epoch of a training.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    lr : float
        The largest learning rate of any layer, in the epoch's last step.
    train_loss, val_loss : float
        Means over the samples.
    val_acc : float
    val_auc : float or None
        Fractions from 0 to 1; None where the AUC is not defined.
    images_per_second : float
        Of the training, without the evaluation on val.
    seconds : float
        Wall time of training and evaluation.
    best : bool
        Whether val loss was the lowest so far.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_acc: float
    val_auc: float | None
    images_per_second: float
    seconds: float
    best: bool


def write_history(path: Path, rows: Sequence[EpochRow]) -> None:
    """Write one line of CSV per epoch under a header, atomically.

    Floats are written so that they can be read back exactly; an undefined AUC is an empty cell.
    """
    names = [field.name for field in fields(EpochRow)]
    lines = ((str(v).lower() if isinstance(v, bool) else v for v in astuple(row)) for row in rows)
    atomic.write_bytes(path, csv_text([names, *lines]).encode())


def draw_learning_curve(path: Path, rows: Sequence[EpochRow], title: str) -> None:
    """Draw losses (left) and val scores (right) by epoch into a PNG, written atomically.

    Parameters
    ----------
    path : Path
    rows : sequence of EpochRow
        At least one. Values that are not finite are left out of the lines.
    title : str
        Shown as it is, on up to three lines; of a very long one, the end.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = io.BytesIO()
    # The reader's own settings may ask for LaTeX, or for white on white.
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # in a name, say Chinese
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, rows, title)
        figure.savefig(picture, format="png", dpi=160)
    atomic.write_bytes(path, picture.getvalue())


_LOOK: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E6E6E6",
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
}


def _draw(figure: Figure, rows: Sequence[EpochRow], title: str) -> None:
    left, right = figure.subplots(1, 2)
    heading = " ".join(title.split())
    if len(heading) > _LONGEST_TITLE:
        heading = "…" + heading[1 - _LONGEST_TITLE :]
    # A name may hold signs that would be taken for mathematics.
    figure.suptitle(textwrap.fill(heading, 84), fontsize=9).set_parse_math(False)
    epochs = [row.epoch for row in rows]
    _line(left, epochs, [row.train_loss for row in rows], "train", _BLUE, "--")
    _line(left, epochs, [row.val_loss for row in rows], "val", _ORANGE)
    _line(right, epochs, [_percent(row.val_acc) for row in rows], "ACC", _GREEN)
    _line(right, epochs, [_percent(row.val_auc) for row in rows], "AUC", _PURPLE, "--")
    best = max((row.epoch for row in rows if row.best), default=None)
    for axes, name in ((left, "loss"), (right, "val score, %")):
        axes.set_title(name, loc="left")
        axes.set_xlabel("epoch")
        _mark_epochs(axes, epochs, best)
        axes.legend(loc="best")


def _line(
    axes: Axes,
    epochs: Sequence[int],
    values: Sequence[float],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    drawn = [value if abs(value) < _MOST_DRAWN else math.nan for value in values]
    if not any(math.isfinite(value) for value in drawn):
        label += " (undefined)"
    marker = "o" if len(epochs) <= _FEW_EPOCHS else ""
    axes.plot(epochs, drawn, style, color=colour, marker=marker, label=label)


def _percent(fraction: float | None) -> float:
    return math.nan if fraction is None else 100 * fraction


def _mark_epochs(axes: Axes, epochs: Sequence[int], best: int | None) -> None:
    """Put ticks at whole epochs, and a line at the best one."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    if best is not None:
        label = f"best: {best}"
        axes.axvline(best, color=_GREY, linewidth=0.9, linestyle=":", zorder=1, label=label)
