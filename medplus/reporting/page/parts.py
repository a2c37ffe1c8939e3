"""What a page is made of: sections of text, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medplus.reporting.table import Block, Cell


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
    short : str
        What the contents call it.
    title : str
    text : str
        What is shown, by which rule; an empty line stands between paragraphs.
    chart : Chart or None
    tables : tuple of Block
    files : tuple of str
        Names of its tables and figures in files, besides the table of its own name.
    notes : tuple of str
    """

    id: str
    short: str
    title: str
    text: str = ""
    chart: Chart | None = None
    tables: tuple[Block, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[Block, ...]:
        """The tables that open on demand."""
        return tuple(table for table in self.tables if table.folded)


def verdict(passed: bool, yes: str = "yes", no: str = "no") -> Cell:
    """Return a cell that says whether something holds."""
    return Cell(yes if passed else no, "yes" if passed else "no")
