"""Figures in files, drawn once for files and page."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing
from matplotlib.text import Text

from medplus import atomic
from medplus.analysis.drawing.style import look
from medplus.analysis.section import Figure
from medplus.memory import uncollected

DPI = 200

# The same numbers must give the same files, so that no file holds a date.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"dpi": DPI, "pil_kwargs": {"compress_level": 3}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}

_FEW, _PROCESSES = 4, 2


def draw(figure: Figure) -> Drawing:
    """Return a figure in the house's style."""
    with look():
        drawn = figure.draw()
        _name_marks(drawn)
        _avoid_ligatures(drawn)
    return drawn


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write every figure as .png, .svg and .pdf into a folder, which is made if there is none.

    Returns
    -------
    list of Path
        The files, in the order of the figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write, folder=folder)
    # Half of a report's time is spent here. Who has loaded torch has threads, and must not fork.
    if len(figures) > _FEW and sys.platform == "linux" and "torch" not in sys.modules:
        with get_context("fork").Pool(_PROCESSES, _leave_signals) as pool:
            written = pool.map(write, figures, chunksize=1)
    else:
        written = [write(figure) for figure in figures]
    return [path for of_figure in written for path in of_figure]


def _leave_signals() -> None:
    """Let Ctrl-C be the parent's, which ends this process by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write(figure: Figure, folder: Path) -> list[Path]:
    paths = [folder / f"{figure.name}.{ending}" for ending in FORMATS]
    with uncollected():
        drawn = draw(figure)
        for path in paths:
            atomic.write_bytes(path, render(drawn, path.suffix[1:]))
    return paths


def render(figure: Drawing, ending: str) -> bytes:
    """Return a figure as a file: png, svg or pdf."""
    content = io.BytesIO()
    with look(), _small_fonts() if ending == "pdf" else nullcontext():
        figure.savefig(content, format=ending, **FORMATS[ending])
    return content.getvalue()


@contextmanager
def _small_fonts() -> Iterator[None]:
    """Leave out of embedded fonts what lays out text, and names: a PDF has its glyphs in place.

    matplotlib has no setting for it, and to cut those tables down takes half of a PDF's time.
    """
    from fontTools import subset

    options = subset.Options
    tables = [*options().drop_tables, "GSUB", "GPOS", "GDEF", "kern"]
    subset.Options = lambda **given: options(
        **{**given, "drop_tables": tables[:], "glyph_names": False}
    )
    try:
        yield
    finally:
        subset.Options = options


def _name_marks(figure: Drawing) -> None:
    """Write labels into the ids of the SVG, which become tooltips on the page."""
    marks = [one for axes in figure.axes for one in (*axes.lines, *axes.patches, *axes.collections)]
    for number, mark in enumerate(marks):
        if (label := str(mark.get_label()))[:1] not in ("", "_"):
            mark.set_gid(f"{number}: {label}")


def _avoid_ligatures(figure: Drawing) -> None:
    """Save PDFs a second font, for which matplotlib takes longer than for all else in them."""
    for text in figure.findobj(Text):
        if hasattr(text, "set_fontfeatures"):  # since matplotlib 3.11, which has ligatures
            text.set_fontfeatures(("-liga",))
