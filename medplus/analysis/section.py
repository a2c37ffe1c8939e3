"""What one analysis says, and what an analysis is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Figure:
    """A figure, which is drawn where it is wanted.

    Attributes
    ----------
    name : str
        Its files' name without the ending.
    summary : str
        What is to be seen in it, for those who cannot see it.
    draw : callable
        Returns the figure; called within `medplus.analysis.drawing.style.look`.
    """

    name: str
    summary: str
    draw: Callable[[], Drawing]


@dataclass(frozen=True)
class Picture:
    """One image of a gallery.

    Attributes
    ----------
    png : bytes
        A thumbnail; it is embedded in the page.
    title : str
        What it is, for everybody: also for those who cannot see it.
    lines : tuple of str
        What stands below it.
    """

    png: bytes
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Images under a caption."""

    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """What one analysis says: a part of the report.

    Attributes
    ----------
    name : str
        The analysis's; what links to the section on the page.
    title : str
        Its heading.
    short : str
        What the contents call it.
    text : str
        How to read it. An empty line stands between paragraphs.
    tables : tuple of Table
    figures : tuple of Figure
    galleries : tuple of Gallery
    sentences : tuple of str
        What it found, computed from the data.
    notes : tuple of str
        What a reader must know before believing it.
    """

    name: str
    title: str
    short: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Analysis(Protocol):
    """A question that is put to a benchmark.

    One file each: its statistic as a pure function with its source, its tables, its figures and its
    sentences. A plain function is one.
    """

    def __call__(self, benchmark: Benchmark) -> Section | None:
        """Return what there is to say; None where it does not apply, and then nothing is shown."""
        ...
