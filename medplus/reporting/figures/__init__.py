"""The report's figures: one module each, all in one style, drawn once for files and page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from medplus import atomic
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
from medplus.reporting.figures.style import look
from medplus.reporting.figures.transfer import draw_transfer

Maker = Callable[[Analysis], Figure | None]

DPI = 200

# The same numbers must give the same files, so that no file holds a date.
_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"dpi": DPI},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}


def _in_style(maker: Maker) -> Maker:
    def make(analysis: Analysis) -> Figure | None:
        with look():
            return maker(analysis)

    return make


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
        for ending, content in render(figure).items():
            path = folder / f"{name}.{ending}"
            atomic.write_bytes(path, content)
            written.append(path)
    return written


def render(figure: Figure) -> dict[str, bytes]:
    """Return a figure's files by their ending.

    In the SVG, what has a label has it in its id, which becomes a tooltip on the page.
    """
    drawn = [one for axes in figure.axes for one in (*axes.lines, *axes.patches, *axes.collections)]
    for number, artist in enumerate(drawn):
        if (label := str(artist.get_label()))[:1] not in ("", "_"):
            artist.set_gid(f"{number}: {label}")
    for text in figure.findobj(Text):
        if hasattr(text, "set_fontfeatures"):  # matplotlib 3.11; a ligature would cost a PDF a font
            text.set_fontfeatures(("-liga",))
    files = {}
    with look():
        for ending, options in _FORMATS.items():
            content = io.BytesIO()
            figure.savefig(content, format=ending, **options)
            files[ending] = content.getvalue()
    return files
