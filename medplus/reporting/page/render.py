"""A report as one HTML document that needs no network and no file beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.document import Document
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.results.baseline import DOI
from medplus.analysis.section import Section
from medplus.analysis.table import Block
from medplus.analysis.verdict import Answer
from medplus.naming import counted
from medplus.reporting.page.drawing import inline_svg
from medplus.reporting.page.inline import asset, content_security_policy, safe_json
from medplus.reporting.page.leaderboard import leaderboard
from medplus.reporting.page.links import PageLinks

_LONG = 30
"""Rows of a table that opens on demand only."""


def render_page(document: Document, links: PageLinks, drawings: Mapping[str, str]) -> str:
    """Return a report as one self-contained HTML document.

    Parameters
    ----------
    document : Document
    links : PageLinks
        Files beside the page; may be empty.
    drawings : mapping of str to str
        The figures' SVG by their name.

    Returns
    -------
    str
        HTML. Style, scripts, data and figures stand in it; its content security policy lets no
        other script run and refuses the network. Names are escaped wherever they stand.
    """
    benchmark = document.benchmark
    board = leaderboard(document, links)
    answer = next((Part(one) for one in document.sections if isinstance(one, Answer)), None)
    datasets = [one.dataset for one in document.verdicts]
    summaries = {figure.name: figure.summary for figure in document.figures}
    return _render(
        "medplus report",
        benchmark.title,
        [benchmark.source, _made(benchmark)],
        [one for one in document.sections if not isinstance(one, Answer)],
        links,
        {name: inline_svg(name, svg, summaries[name]) for name, svg in drawings.items()},
        benchmark=benchmark,
        board=board,
        board_json=safe_json(board.data),
        scripts={"board": asset("board.js")},
        answer=answer,
        candidates=dict(zip(datasets, answer.blocks, strict=True)) if answer else {},
        protocol_labels=PROTOCOL_LABELS,
    )


def render_sections(
    brand: str, title: str, lines: Sequence[str], sections: Sequence[Section]
) -> str:
    """Return sections without figures as one self-contained HTML document, like a report.

    Parameters
    ----------
    brand, title : str
    lines : sequence of str or Markup
        What stands below the title.
    sections : sequence of Section
    """
    return _render(brand, title, lines, sections, PageLinks(), {})


def _render(
    brand: str,
    title: str,
    lines: Sequence[str],
    sections: Sequence[Section],
    links: PageLinks,
    figures: Mapping[str, str],
    scripts: Mapping[str, Markup] = MappingProxyType({}),
    **of_report: Any,
) -> str:
    parts = [one for one in map(Part, sections) if one.names or one.section.galleries]
    every = {"theme": asset("theme.js"), **scripts, "page": asset("page.js")}
    values = dict.fromkeys(("answer", "board")) | of_report
    return page_template("template.html.j2").render(
        brand=brand,
        title=title,
        lines=lines,
        findings=[sentence for one in sections for sentence in one.sentences],
        notes=[(one.name, note) for one in sections for note in one.notes],
        parts=parts,
        short={one.section.name: one.section.short for one in parts},
        figures=figures,
        links=links,
        policy=content_security_policy(*every.values()),
        scripts=every,
        style=asset("page.css"),
        **values,
    )  # fmt: skip


def _made(benchmark: Benchmark) -> Markup:
    """Return when a report was made, and of how much."""
    cells, at = benchmark.cells, benchmark.created
    link = f'<a href="https://doi.org/{DOI}" rel="noreferrer">doi:{DOI}</a> · '
    counts = [
        counted(cells["backbone"].nunique(), "backbone"),
        counted(benchmark.n_datasets, "dataset"),
        counted(len(cells), "cell"),
    ]
    made = f'Made <time datetime="{{}}">{at[:16].replace("T", " ")} UTC</time> · {{}}'
    return Markup((link if benchmark.baseline else "") + made).format(at, " · ".join(counts))  # noqa: S704


@dataclass(frozen=True)
class Part:
    """A section, and what of it is seen at once."""

    section: Section

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tables and figures."""
        tables, figures = self.section.tables, self.section.figures
        return (*(one.name for one in tables), *(one.name for one in figures))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of its tables that have rows."""
        blocks = (block for table in self.section.tables for block in table.blocks)
        return tuple(block for block in blocks if len(block.rows))

    @property
    def first(self) -> tuple[Block, ...]:
        """The table that is seen at once, if it is short."""
        return self.blocks[:1] if self.blocks and len(self.blocks[0].rows) <= _LONG else ()

    @property
    def folded(self) -> tuple[Block, ...]:
        """The tables that open on demand."""
        return self.blocks[len(self.first) :]


def page_template(name: str, package: str = "medplus.reporting.page") -> Template:
    """Return a template of this package, or another of ours, that escapes what it shows."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.get_template(name)
