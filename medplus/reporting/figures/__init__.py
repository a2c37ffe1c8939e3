"""The report's figures: one module each, all in one style, drawn once for files and page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from medplus import atomic
from medplus.analysis.drawing.style import look
from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.against import draw_against
from medplus.reporting.figures.boxes import draw_boxes
from medplus.reporting.figures.cost import draw_cost
from medplus.reporting.figures.critical_difference import draw_critical_difference
from medplus.reporting.figures.datasets import draw_datasets
from medplus.reporting.figures.gains import draw_gains
from medplus.reporting.figures.intervals import draw_intervals
from medplus.reporting.figures.overview import draw_overview
from medplus.reporting.figures.pairwise import draw_pairwise
from medplus.reporting.figures.ranking import draw_ranking
from medplus.reporting.figures.transfer import draw_transfer

Maker = Callable[[Analysis], Figure | None]

DPI = 200

# The same numbers must give the same files, so that no file holds a date.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"dpi": DPI},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}


def _in_style(maker: Maker) -> Maker:
    def make(analysis: Analysis) -> Figure | None:
        with look():
            if (figure := maker(analysis)) is not None:
                _name_marks(figure)
                _avoid_ligatures(figure)
        return figure

    return make


def _name_marks(figure: Figure) -> None:
    """Write labels into the ids of the SVG, which become tooltips on the page."""
    marks = [one for axes in figure.axes for one in (*axes.lines, *axes.patches, *axes.collections)]
    for number, mark in enumerate(marks):
        if (label := str(mark.get_label()))[:1] not in ("", "_"):
            mark.set_gid(f"{number}: {label}")


def _avoid_ligatures(figure: Figure) -> None:
    """Save PDFs a second font, for which matplotlib takes longer than for all else in them."""
    for text in figure.findobj(Text):
        if hasattr(text, "set_fontfeatures"):  # since matplotlib 3.11, which has ligatures
            text.set_fontfeatures(("-liga",))


FIGURES: Mapping[str, Maker] = {
    "fig1_overview": _in_style(draw_overview),
    "fig2_ranking": _in_style(draw_ranking),
    "fig3_gains": _in_style(draw_gains),
    "fig4_boxes": _in_style(draw_boxes),
    "fig5_pairwise": _in_style(draw_pairwise),
    "fig6_cost": _in_style(draw_cost),
    "fig7_critical_difference": _in_style(draw_critical_difference),
    "fig8_transfer": _in_style(draw_transfer),
    "fig9_datasets": _in_style(draw_datasets),
    "fig10_intervals": _in_style(draw_intervals),
    "fig11_against": _in_style(draw_against),
}
"""What makes each figure of an analysis; None where there is nothing to draw."""

SUMMARIES: Mapping[str, str] = {
    "fig1_overview": "Lines: mean ACC over datasets by image size, one panel per protocol, one "
    "line per backbone.",
    "fig2_ranking": "Heat maps: in how many settings each backbone takes each rank.",
    "fig3_gains": "Heat maps: on how many datasets each step to a larger image size helps.",
    "fig4_boxes": "Box plots: the spread of ACC over datasets by backbone and image size.",
    "fig5_pairwise": "Matrix: the p-value of every pair of backbones.",
    "fig6_cost": "Points: mean ACC over device seconds, and the Pareto front.",
    "fig7_critical_difference": "Mean rank of every backbone; bars join those that do not differ "
    "significantly.",
    "fig8_transfer": "Points: rank by a cheap setting against rank by an expensive one.",
    "fig9_datasets": "Lines: ACC by image size on each dataset, one line per backbone.",
    "fig10_intervals": "Bars: mean ACC and its 95 % interval over datasets.",
    "fig11_against": "Points: your ACC less the paper's, over the paper's.",
}
"""What is to be seen in each, for those who cannot see it."""


def write_figures(analysis: Analysis, folder: Path) -> list[Path]:
    """Write every figure as .png, .svg and .pdf into a folder, which is made if there is none.

    Returns
    -------
    list of Path
        The files, in the order of `FIGURES`; none for a figure that has nothing to show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FIGURES.items():
        figure = make(analysis)
        if figure is None:
            continue
        for ending in FORMATS:
            path = folder / f"{name}.{ending}"
            atomic.write_bytes(path, render(figure, ending))
            written.append(path)
    return written


def render(figure: Figure, ending: str) -> bytes:
    """Return a figure as a file: png, svg or pdf."""
    content = io.BytesIO()
    with look():
        figure.savefig(content, format=ending, **FORMATS[ending])
    return content.getvalue()
