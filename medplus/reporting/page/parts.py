"""What a page is made of: sections of text, charts and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Mark = Literal["", "best", "second", "yes", "no"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes
    ----------
    text : str
    mark : str
        ``best`` and ``second`` of a group; ``yes`` and ``no`` where a test was passed or not.
    level : float or None
        0 to 1: how strongly the cell is tinted; None for not at all.
    runs : tuple of (str, str or None)
        Instead of a text: runs, each with the link to its folder, or None.
    """

    text: str
    mark: Mark = ""
    level: float | None = None
    runs: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class Column:
    """A column's heading; `group` is the heading that it shares with its neighbours."""

    label: str
    numeric: bool = False
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is the row's heading.

    Attributes
    ----------
    caption : str
    columns : tuple of Column
    rows : tuple of tuples of Cell
    folded : bool
        Whether it opens on demand only.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = True

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """The upper row of headings with the columns that each spans; empty if there is none."""
        if not any(column.group for column in self.columns):
            return ()
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return tuple(spans)


@dataclass(frozen=True)
class Chart:
    """An interactive chart, of which a reader may choose the variant.

    Attributes
    ----------
    id : str
    summary : str
        What a screen reader says instead of it.
    variants : mapping of str to dict
        By name, plotly's ``data`` and ``layout``, and ``narrow``: what differs in a narrow layout.
    choose : str
        The label of the choice.
    height : int
        In CSS pixels.
    narrow_height : int
        The same where the page is narrow.
    min_width : int
        Below it the chart scrolls in its box.
    """

    id: str
    summary: str
    variants: Mapping[str, dict[str, Any]]
    choose: str = "Show"
    height: int = 440
    narrow_height: int = 440
    min_width: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what the page's script draws."""
        return {
            "variants": list(self.variants.values()),
            "height": self.height,
            "narrowHeight": self.narrow_height,
            "minWidth": self.min_width,
        }


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes
    ----------
    id : str
        What links to it, and what notes name as their `where`.
    title : str
    text : tuple of str
        Paragraphs: what is shown, by which rule.
    charts : tuple of Chart
    tables : tuple of Table
    files : tuple of str
        Names of the CSV tables and figures of this section.
    notes : tuple of str
    """

    id: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[Table, ...]:
        """The tables that open on demand."""
        return tuple(table for table in self.tables if table.folded)


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    folded: bool = True,
) -> Table:
    """Return a table of cells, some of them given as plain text."""
    made = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    return Table(caption, tuple(columns), made, folded)


def text_columns(*labels: str) -> list[Column]:
    """Return headings of columns of words."""
    return [Column(label) for label in labels]


def number_columns(*labels: str) -> list[Column]:
    """Return headings of columns of numbers."""
    return [Column(label, numeric=True) for label in labels]


def verdict(passed: bool, yes: str = "yes", no: str = "no") -> Cell:
    """Return a cell that says whether something holds."""
    return Cell(yes if passed else no, "yes" if passed else "no")
