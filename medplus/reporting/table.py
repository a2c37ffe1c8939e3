"""A table of the report, and how it is written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.palette import PROTOCOL_LABELS

Kind = Literal["text", "protocol", "size", "percent", "count", "exact", "p", "seconds", "flag"]
"""What a column holds, which decides how it is written."""

MISSING = "–"
"""What readers see where there is no number; in CSV the cell is empty."""

_LONGEST = 50
"""Rows of one LaTeX table: more do not fit a page."""

_FLOATS = 10
"""LaTeX tables between page breaks: LaTeX can hold back only a few."""

_PREAMBLE = "% Needs \\usepackage{booktabs} and \\usepackage{adjustbox} in the preamble."


@dataclass(frozen=True)
class Cell:
    """What readers see in one place of a table: its text, and whether it stands out."""

    text: str
    mark: Literal["", "best", "second"] = ""


@dataclass(frozen=True)
class Column:
    """The head of a column; neighbours of one group stand under one heading."""

    title: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Block:
    """A part of a table under its own caption.

    Attributes
    ----------
    caption : str
    columns : sequence of Column
    rows : sequence of sequence of Cell
    grouped : bool
        Whether rows belong together that are equal in the first column.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    grouped: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    name : str
        Its file's name without the ending.
    frame : pandas.DataFrame
        What is written as CSV, all columns in their order.
    kinds : mapping of str to Kind
        What the columns hold.
    blocks : sequence of Block
        What readers see, in Markdown and LaTeX.
    """

    name: str
    frame: pd.DataFrame
    kinds: Mapping[str, Kind]
    blocks: Sequence[Block] = field(repr=False)

    def csv(self) -> str:
        """Return the table as CSV: percent with two decimals, all other numbers in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.frame.columns)
        columns = [
            [_FOR_MACHINES[self.kinds[name]](value) if _given(value) else "" for value in values]
            for name, values in self.frame.items()
        ]
        writer.writerows(zip(*columns, strict=True))
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, a section per block."""
        blocks = [_markdown_block(block) for block in self.blocks] or ["No results."]
        return "\n\n".join(blocks) + "\n"

    def latex(self) -> str:
        """Return the table in LaTeX with booktabs, to be read into a document."""
        floats = [text for block in self.blocks for text in _latex_block(block)]
        lines = [_PREAMBLE]
        for number, text in enumerate(floats):
            if number and number % _FLOATS == 0:
                lines.append("\\clearpage")
            lines.append(text)
        return "\n\n".join(lines) + "\n"


def list_block(
    caption: str, frame: pd.DataFrame, kinds: Mapping[str, Kind], hidden: Sequence[str] = ()
) -> Block:
    """Return a block that shows a frame as it is, a row per row, without the `hidden` columns."""
    names = [name for name in frame.columns if name not in hidden]
    columns = [
        Column(name.replace("_", " "), numeric=kinds[name] not in ("text", "protocol", "flag"))
        for name in names
    ]
    cells = [[show(value, kinds[name]) for value in frame[name]] for name in names]
    return Block(caption, columns, list(zip(*cells, strict=True)))


def show(value: Any, kind: Kind) -> Cell:
    """Return what readers see of a value."""
    if not _given(value):
        return Cell("" if kind == "text" else MISSING)
    return Cell(_FOR_READERS[kind](value))


def _given(value: Any) -> bool:
    """Tell whether there is a value at all: None, NaN and pandas' NA are none."""
    return value is not None and value is not pd.NA and not _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _text(value: Any) -> str:
    """Return names as they are, and of several, say run folders, one after the other."""
    return "; ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _size(value: Any) -> str:
    """Return a size as a whole number, which pandas may hold as a float, or ``all``."""
    return str(int(value)) if isinstance(value, float) else str(value)


def _count(value: float) -> str:
    return str(int(value))


_FOR_MACHINES: dict[Kind, Callable[[Any], str]] = {
    "text": _text,
    "protocol": _text,
    "size": _size,
    "percent": fmt.percent,
    "count": _count,
    "exact": fmt.exact,
    "p": fmt.exact,
    "seconds": fmt.exact,
    "flag": lambda value: str(bool(value)).lower(),
}

_FOR_READERS: dict[Kind, Callable[[Any], str]] = {
    "text": _text,
    "protocol": lambda value: PROTOCOL_LABELS.get(value, str(value)),
    "size": _size,
    "percent": fmt.percent,
    "count": _count,
    "exact": fmt.percent,
    "p": fmt.p_value,
    "seconds": fmt.seconds,
    "flag": lambda value: "yes" if value else "no",
}


def _markdown_block(block: Block) -> str:
    titles = [fmt.markdown(f"{column.group} {column.title}") for column in block.columns]
    rules = ["---:" if column.numeric else "---" for column in block.columns]
    rows = [[_markdown_cell(cell) for cell in row] for row in block.rows]
    lines = [f"| {' | '.join(row)} |" for row in (titles, rules, *rows)]
    return "\n".join([f"**{fmt.markdown(block.caption)}**", "", *lines])


def _markdown_cell(cell: Cell) -> str:
    text = fmt.markdown(cell.text)
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)


def _latex_block(block: Block) -> Iterator[str]:
    """Yield the block as one float, or as several where it is longer than a page."""
    parts = list(_pages(block))
    for number, rows in enumerate(parts, start=1):
        caption = fmt.latex(block.caption)
        if len(parts) > 1:
            caption += f" ({number} of {len(parts)})"
        align = "".join("r" if column.numeric else "l" for column in block.columns)
        yield "\n".join(
            [
                "\\begin{table}[htbp]",
                "\\centering",
                f"\\caption{{{caption}}}",
                "\\begin{adjustbox}{max width=\\linewidth, max totalheight=0.85\\textheight}",
                f"\\begin{{tabular}}{{{align}}}",
                "\\toprule",
                *_latex_head(block.columns),
                "\\midrule",
                *_latex_rows(rows, block.grouped),
                "\\bottomrule",
                "\\end{tabular}",
                "\\end{adjustbox}",
                "\\end{table}",
            ]
        )


def _pages(block: Block) -> Iterator[Sequence[Sequence[Cell]]]:
    """Cut rows into pages, and between groups rather than within one."""
    groups = (
        [list(rows) for _, rows in groupby(block.rows, key=lambda row: row[0])]
        if block.grouped
        else [[row] for row in block.rows]
    )
    page: list[Sequence[Cell]] = []
    for group in groups:
        if page and len(page) + len(group) > _LONGEST:
            yield page
            page = []
        page.extend(group)
        while len(page) > _LONGEST:
            yield page[:_LONGEST]
            page = page[_LONGEST:]
    if page or not block.rows:
        yield page


def _latex_head(columns: Sequence[Column]) -> list[str]:
    titles = " & ".join(fmt.latex(column.title) for column in columns) + r" \\"
    if not any(column.group for column in columns):
        return [titles]
    heads, rules, start = [], [], 1
    for name, members in groupby(column.group for column in columns):
        width = len(list(members))
        if name:
            heads.append(f"\\multicolumn{{{width}}}{{c}}{{{fmt.latex(name)}}}")
            rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
        else:
            heads.extend([""] * width)
        start += width
    return [" & ".join(heads) + r" \\", "".join(rules), titles]


def _latex_rows(rows: Sequence[Sequence[Cell]], grouped: bool) -> Iterator[str]:
    previous = None
    for row in rows:
        cells = [_latex_cell(cell) for cell in row]
        if grouped:
            if previous is not None and row[0] != previous:
                yield "\\midrule"
            elif previous is not None:
                cells[0] = ""
            previous = row[0]
        yield " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = fmt.latex(cell.text)
    return {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}"}.get(cell.mark, text)
