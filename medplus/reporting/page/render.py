"""An analysis as one HTML document that needs no network and no file beside it."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.results.baseline import DOI
from medplus.reporting.analysis import Analysis
from medplus.reporting.figures import SUMMARIES
from medplus.reporting.page.drawing import inline_svg
from medplus.reporting.page.inline import asset, content_security_policy, safe_json
from medplus.reporting.page.leaderboard import leaderboard
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.sections import sections
from medplus.reporting.tables import tables_of


def render_page(analysis: Analysis, links: PageLinks, drawings: Mapping[str, str]) -> str:
    """Return a report as one self-contained HTML document.

    Parameters
    ----------
    analysis : Analysis
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
    shown = sections(analysis, tables_of(analysis))
    board = leaderboard(analysis, links)
    scripts = {"theme": asset("theme.js"), "page": asset("page.js")}
    figures = {name: inline_svg(name, svg, SUMMARIES[name]) for name, svg in drawings.items()}
    template = _environment().get_template("template.html.j2")
    return template.render(
        analysis=analysis,
        board=board,
        board_json=safe_json(board.data),
        sections=shown,
        short={section.id: section.short for section in shown},
        figures=figures,
        policy=content_security_policy(*scripts.values()),
        scripts=scripts,
        style=asset("page.css"),
        links=links,
        doi=DOI,
        protocol_labels=PROTOCOL_LABELS,
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("medplus.reporting.page", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
