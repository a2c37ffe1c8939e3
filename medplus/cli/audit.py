"""`medplus audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.cli.specs import selecting

if TYPE_CHECKING:
    from medplus.auditing.audit import Audit


@click.command()
@selecting
@click.option(
    "--out",
    type=options.FOLDER,
    help="Folder of suspects.csv and the page.  [default: audit/DATASET/SIZE]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="How alike twins are, up to 1.  [default: from the data]",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="For the labels' out-of-fold probabilities.  [default: 5, or what the smallest class "
    "allows]",
)
@click.option(
    "--groups",
    type=options.FILE,
    help="A CSV table of what belongs together, such as a patient's images: columns group, and "
    "name or split and index.",
)
@options.runs_root
@options.common
def audit(
    output: Output, stores: list[Any], device: str, out: Path | None, **settings: Any
) -> None:
    """Look for what makes data untrustworthy: leaks, twins, doubtful labels, outliers, shortcuts.

    Nothing is changed. suspects.csv is yours to edit: --exclude of extract, knn, probe and
    finetune leaves out the images whose verdict says exclude.
    """
    from medplus.auditing.audit import audit as run_audit
    from medplus.naming import safe_name

    info = stores[0].info
    folder = out or Path("audit") / safe_name(info.dataset) / str(info.size)
    found = run_audit(stores, out=folder, progress=output.progress, **settings)
    output.result(found.to_dict(), lambda: _show(found))


def _show(found: Audit) -> None:
    chosen = [one for one in found.consequences if one.is_chosen]
    say(
        *(sentence for section in found.sections for sentence in section.sentences),
        *(f"{one.protocol} {one.backbone}: {one.sentence}" for one in chosen),
        *(f"Note: {note}" for note in found.notes),
        f"To decide on: {found.out / 'suspects.csv'}; to look at: {found.page}",
    )
