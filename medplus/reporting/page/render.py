"""A report as one HTML document that needs no network and no file beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from medplus.analysis.document import Document
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.results.baseline import DOI
from medplus.analysis.section import Section
from medplus.analysis.table import Block
from medplus.analysis.verdict import Answer
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
    scripts = {"theme": asset("theme.js"), "page": asset("page.js")}
    summaries = {figure.name: figure.summary for figure in document.figures}
    figures = {name: inline_svg(name, svg, summaries[name]) for name, svg in drawings.items()}
    parts = [Part(one) for one in document.sections if one.name != "verdict"]
    parts = [one for one in parts if one.names or one.section.galleries]
    answer = [Part(one) for one in document.sections if isinstance(one, Answer)]
    template = _environment().get_template("template.html.j2")
    return template.render(
        document=document,
        benchmark=benchmark,
        board=board,
        board_json=safe_json(board.data),
        answer=answer[0] if answer else None,
        candidates=dict(
            zip((one.dataset for one in document.verdicts), answer[0].blocks, strict=True)
        )
        if answer
        else {},
        parts=parts,
        short={one.section.name: one.section.short for one in parts},
        figures=figures,
        policy=content_security_policy(*scripts.values()),
        scripts=scripts,
        style=asset("page.css"),
        links=links,
        doi=DOI,
        protocol_labels=PROTOCOL_LABELS,
    )


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


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medplus.reporting.page", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment
