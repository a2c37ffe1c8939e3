"""The report's figures, for print: one module each, all in one style."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medplus import atomic
from medplus.reporting.analysis import Analysis
from medplus.reporting.figures.boxes import draw_boxes
from medplus.reporting.figures.cost import draw_cost
from medplus.reporting.figures.critical_difference import draw_critical_difference
from medplus.reporting.figures.gains import draw_gains
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
}
"""What makes each figure of an analysis; None where there is nothing to draw."""


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
    """Return a figure's files by their ending."""
    files = {}
    with look():
        for ending, options in _FORMATS.items():
            content = io.BytesIO()
            figure.savefig(content, format=ending, **options)
            files[ending] = content.getvalue()
    return files
