"""`medplus panel`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.naming import printable

if TYPE_CHECKING:
    from medplus.analysis.panel.versus import Versus
    from medplus.analysis.section import Section

panel_options = options.together(
    click.option(
        "--positive", metavar="CLASS", help="The class that matters, by name; it is never assumed."
    ),
    click.option(
        "--prevalence",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Of --positive, where PPV and NPV are to hold.  [default: that of the test images]",
    ),
    options.several(
        "--by",
        help="Column of the table to group the test images by; of numbers also COLUMN:decade, or "
        "COLUMN:q4 for quarters. Repeat or use commas.",
    ),
    click.option(
        "--table",
        type=options.FILE,
        help="CSV or parquet with these columns, and with path, or index, to tell the images.  "
        "[default: the dataset's own]",
    ),
)
"""The options of a clinical panel."""


@click.command()
@click.argument("run", metavar="RUN", type=options.FOLDER)
@panel_options
@click.option(
    "--versus",
    metavar="RUN",
    type=options.FOLDER,
    help="Also test its AUC against this run's (DeLong).",
)
@click.option(
    "--out", type=options.FOLDER, help="Also write tables, figures and the images of mistakes."
)
@options.data_root
@options.common
def panel(
    output: Output, run: Path, versus: Path | None, out: Path | None, data_root: Path, **asked: Any
) -> None:
    """Say of a RUN what a clinician asks: from its folder of predictions, whatever its protocol.

    Sensitivity, specificity and predictive values with intervals; thresholds chosen on val; curves,
    net benefit, calibration; subgroups; and its mistakes.

    \b
    medplus panel runs/probe/…/RUN --positive malignant --prevalence 0.02
    medplus panel runs/probe/…/RUN --by scanner,age:decade --out panel
    """  # noqa: D301 - click wants the control character
    if asked["table"] is not None and not asked["by"]:
        raise click.UsageError("--table is for --by: name a column of it")
    from medplus.analysis.panel import compare_panels, examine
    from medplus.analysis.panel import panel as panel_of_run
    from medplus.run.ledger import check_is_run

    check_is_run(run)
    found = examine(run, **asked | {"by": asked["by"] or ()})
    document = found.to_dict()
    pairs: Sequence[Versus] = ()
    if versus is not None:
        other = panel_of_run(versus, asked["positive"], asked["prevalence"])
        pairs = compare_panels(found.panel, other)
        document["versus"] = {"run": str(versus), "classes": [pair.to_dict() for pair in pairs]}
    if out is not None:
        from medplus.reporting.sections import write_sections

        files = write_sections(found.sections(data_root), out)
        document["files"] = [str(path) for path in files]
    output.result(document, lambda: _show(found.sections(None), pairs, versus, out))


def _show(
    sections: Sequence[Section], pairs: Sequence[Versus], versus: Path | None, out: Path | None
) -> None:
    from medplus.cli.tables import print_tables

    for section in sections:
        click.echo(click.style(printable(section.title), bold=True))
        say(*section.sentences)
        print_tables(section.tables)
        say(*(f"Note: {note}" for note in section.notes), "")
    say(*(pair.sentence(str(versus)) for pair in pairs))
    if out is not None:
        say(f"Tables, figures and pictures: {out}")
