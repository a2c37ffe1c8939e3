"""An analysis as one HTML document that needs no network and no file beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from jinja2 import Environment, PackageLoader, StrictUndefined

from medplus.reporting.analysis import Analysis
from medplus.reporting.baseline import DOI
from medplus.reporting.page.inline import (
    asset,
    content_security_policy,
    plotly_source,
    safe_json,
)
from medplus.reporting.page.leaderboard import leaderboard
from medplus.reporting.page.links import PageLinks, href
from medplus.reporting.page.parts import Section
from medplus.reporting.page.sections import sections
from medplus.reporting.palette import PROTOCOL_LABELS

_ALIASES = {
    "resolution_gains": "gains",
    "transfer": "transfers",
    "cost": "costs",
    "pareto": "costs",
    "boxes": "percentiles",
}
"""Other names that notes may give to sections."""

_SHORT = {
    "against": "Beside the paper",
    "newcomers": "New backbones",
    "benchmark": "Accuracy by size",
    "ranking": "Ranking",
    "gains": "Resolution gains",
    "percentiles": "Spread",
    "pairwise": "Pairwise tests",
    "comparisons": "Holm, effect sizes",
    "friedman": "Critical difference",
    "intervals": "Intervals",
    "paired": "Best and second",
    "costs": "Cost",
    "transfers": "Cheap predicts",
    "unlike": "Left out",
    "datasets": "Data",
}
"""What the contents call a section."""


def render_page(analysis: Analysis, links: PageLinks) -> str:
    """Return a report as one self-contained HTML document.

    Parameters
    ----------
    analysis : Analysis
    links : PageLinks
        Files beside the page; may be empty.

    Returns
    -------
    str
        HTML. Style, scripts, data and plotly.js stand in it; its content security policy lets no
        other script run and refuses the network. Names are escaped wherever they stand.
    """
    shown = [_with_notes(section, analysis) for section in sections(analysis, links)]
    board = leaderboard(analysis, links)
    scripts = {"theme": asset("theme.js"), "page": asset("page.js"), "plotly": plotly_source()}
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            analysis=analysis,
            board=board,
            board_json=safe_json(board.data),
            sections=shown,
            known_sections=[section.id for section in shown],
            charts_json=safe_json(
                {chart.id: chart.to_json() for section in shown for chart in section.charts}
            ),
            policy=content_security_policy(*scripts.values()),
            scripts=scripts,
            short=_SHORT,
            style=asset("page.css"),
            links=links,
            section_files=[_files(section.files, links) for section in shown],
            doi=DOI,
            href=href,
            note_section=_note_section,
            protocol_labels=PROTOCOL_LABELS,
        )
    )


_NUMBER = re.compile(r"^fig\d+_")
"""What the names of figures begin with."""


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("medplus.reporting.page", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _note_section(where: str) -> str:
    return _ALIASES.get(where, where)


def _with_notes(section: Section, analysis: Analysis) -> Section:
    texts = (note.text for note in analysis.notes if _note_section(note.where) == section.id)
    return replace(section, notes=tuple(dict.fromkeys(texts)))


def _files(names: Sequence[str], links: PageLinks) -> list[tuple[str, str]]:
    """Return (label, link) of the files of a section that are there."""
    found = []
    for name, path in links.tables.items():
        if name in names:
            found.append((f"{name}.csv", href(path)))
    for name, kinds in links.figures.items():
        if _NUMBER.sub("", name) in names:
            found += [(f"{name}.{kind}", href(path)) for kind, path in kinds.items()]
    return found
