"""Figures in files, drawn once for files and page."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
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

_FEW = 4


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
    rest: Sequence[Figure] = ()
    # Half of a report's time is spent here. Who has loaded torch has threads, and must not fork.
    if len(figures) > _FEW and sys.platform == "linux" and "torch" not in sys.modules:
        rest = figures[1::2]
    with _second_process(rest, folder) as is_done:
        for figure in figures if not rest else figures[::2]:
            _write(figure, folder)
    if not is_done():  # as where memory ran out: told here, if it is not enough for one process
        for figure in rest:
            _write(figure, folder)
    return [path for figure in figures for path in _paths(figure, folder)]


@contextmanager
def _second_process(figures: Sequence[Figure], folder: Path) -> Iterator[Callable[[], bool]]:
    """Write figures in a process beside a block, and tell whether it has written them all."""
    child = get_context("fork").Process(target=_write_all, args=(figures, folder, os.getpid()))
    try:
        if figures:
            with suppress(OSError):  # no room for another process
                child.start()
        yield lambda: not figures or child.exitcode == 0
        if child.pid is not None:
            child.join()
    finally:
        if child.is_alive():
            child.kill()


def _write_all(figures: Sequence[Figure], folder: Path, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they are the parent's
        signal.signal(number, signal.SIG_IGN)
    try:
        for figure in figures:
            if os.getppid() != parent:
                sys.exit(1)
            _write(figure, folder)
    except Exception:
        sys.exit(1)


def _paths(figure: Figure, folder: Path) -> list[Path]:
    return [folder / f"{figure.name}.{ending}" for ending in FORMATS]


def _write(figure: Figure, folder: Path) -> None:
    with uncollected():
        drawn = draw(figure)
        for path in _paths(figure, folder):
            atomic.write_bytes(path, render(drawn, path.suffix[1:]))


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
