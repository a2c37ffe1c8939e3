"""What a page is made of: sections of text, figures and tables."""

from __future__ import annotations

from dataclasses import dataclass

from medplus.reporting.table import Block, Cell


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
    tables : tuple of Block
    files : tuple of str
        Names of its tables and figures in files, besides the table of its own name. The figures
        are shown.
    notes : tuple of str
    """

    id: str
    short: str
    title: str
    text: str = ""
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
