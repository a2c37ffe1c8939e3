"""Tables in Markdown and LaTeX, in which names are shown as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from medplus.analysis.format import one_line
from medplus.analysis.table import Block, Cell

_LONGEST = 50
"""Rows of one LaTeX table: more do not fit a page."""

_FLOATS = 10
"""LaTeX tables between page breaks: LaTeX can hold back only a few."""

_PREAMBLE = "% Needs \\usepackage{booktabs} and \\usepackage{adjustbox} in the preamble."

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\symbol{34}",
    # After the end of a row these two would be taken for its argument, or for its star.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "ρ": r"$\rho$",
    "–": "--",
    "−": "$-$",
    "…": r"\ldots{}",
}

_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\`*[]|~$"}


def markdown(text: Any) -> str:
    """Return a text so that Markdown shows it as it is, also in a cell of a table."""
    escaped = "".join(_MARKDOWN.get(c, c) for c in one_line(text))
    # Underscores within words mean nothing, and names of backbones are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def latex(text: Any) -> str:
    """Return a text so that LaTeX prints it as it is."""
    # Two hyphens would become a dash.
    apart = re.sub("-(?=-)", "-\0", one_line(text))
    return "".join(_LATEX.get(c, c) for c in apart).replace("\0", "{}")


def markdown_table(blocks: Sequence[Block]) -> str:
    """Return a table in GitHub's Markdown, a section per block."""
    texts = [_markdown_block(block) for block in blocks] or ["No results."]
    return "\n\n".join(texts) + "\n"


def latex_table(blocks: Sequence[Block]) -> str:
    """Return a table in LaTeX with booktabs, to be read into a document."""
    lines = [_PREAMBLE]
    for number, text in enumerate(text for block in blocks for text in _latex_block(block)):
        if number and number % _FLOATS == 0:
            lines.append("\\clearpage")
        lines.append(text)
    return "\n\n".join(lines) + "\n"


def _markdown_block(block: Block) -> str:
    titles = [markdown(f"{column.group} {column.title}") for column in block.columns]
    rules = ["---:" if column.numeric else "---" for column in block.columns]
    rows = [[_markdown_cell(cell) for cell in row] for row in block.rows]
    lines = [f"| {' | '.join(row)} |" for row in (titles, rules, *rows)]
    return "\n".join([f"**{markdown(block.caption)}**", "", *lines])


def _markdown_cell(cell: Cell) -> str:
    text = markdown(cell.text)
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)


def _latex_block(block: Block) -> Iterator[str]:
    """Yield the block as one float, or as several where it is longer than a page."""
    parts = list(_pages(block))
    for number, rows in enumerate(parts, start=1):
        caption = latex(block.caption)
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
                *_latex_head(block),
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


def _latex_head(block: Block) -> list[str]:
    titles = " & ".join(latex(column.title) for column in block.columns) + r" \\"
    heads, rules, start = [], [], 1
    for name, width in block.groups:
        if name:
            heads.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(name)}}}")
            rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
        else:
            heads.extend([""] * width)
        start += width
    return [" & ".join(heads) + r" \\", "".join(rules), titles] if heads else [titles]


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
    text = latex(cell.text)
    return {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}"}.get(cell.mark, text)
