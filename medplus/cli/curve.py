"""`medplus curve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.cli.specs import selecting

if TYPE_CHECKING:
    from medplus.curves.kept import Curve
    from medplus.embeddings.store import EmbeddingStore


@click.command()
@selecting
@options.several(
    "--shots",
    "shots",
    of=options.AT_LEAST_1,
    help="Images of each class; repeat or use commas.  [default: 1, 2, 5, 10, … as far as the "
    "smallest class has them, unless there are --fractions]",
)
@options.several(
    "--fractions", "fractions", of=click.FLOAT, help="Shares of each class, such as 0.1,0.5,1."
)
@click.option(
    "--episodes",
    type=options.AT_LEAST_1,
    default=10,
    help="How often the images are drawn anew.",
)
@options.seeds("1", "Of the probes of every episode. ")
@options.several(
    "--protocol",
    "protocols",
    of=click.Choice(["probe", "knn"]),
    default=["probe"],
    help="Repeat or use commas.",
)
@click.option(
    "--tune",
    type=click.Choice(["val", "shots"]),
    default="val",
    help="What chooses learning rate and k: the val split, or folds within the images drawn.",
)
@click.option(
    "--target",
    type=click.FLOAT,
    default=0.9,
    help="The test accuracy for which the number of labels is wanted.",
)
@options.gradual("13 from 1e-4 to 1")
@click.option("--out", type=options.FOLDER, help="Folder of the figure and of everything as JSON.")
@options.exclude
@options.runs_root
@options.folding
@options.common
def curve(
    output: Output,
    stores: list[EmbeddingStore],
    seeds: tuple[int, ...] | None,
    out: Path | None,
    **settings: Any,
) -> None:
    """Score heads that learn from few images of each class, and say what more would bring.

    Every episode draws images, the same for all backbones, smaller amounts within larger ones. No
    test image trains or chooses anything. The curve is kept beside the runs, where medplus report
    finds it.
    """
    from medplus.curves.curve import curve as ask

    made = ask(stores, seeds=seeds or (1,), progress=output.progress, **settings)
    files: list[Path] = []
    if out is not None:
        from medplus.reporting.curve import write_curve

        files = write_curve(made, out)
    document = {**made.to_dict(), "files": list(map(str, files))}
    output.result(document, lambda: _show(made, files))


def _show(made: Curve, files: list[Path]) -> None:
    from medplus.cli.tables import Column, bounds, percent, print_rows

    rows = [row for one in made.series for row in one.to_dict()]
    over = made.series[0].over
    print_rows(
        rows,
        (Column("protocol"), lambda row: row["protocol"]),
        (Column("backbone"), lambda row: row["backbone"]),
        (Column("per class", right=True), lambda row: row["amount"]),
        (Column("images", right=True), lambda row: row["labels"]),
        (Column("test ACC", right=True), lambda row: percent(row["mean"])),
        (Column("95 % interval", right=True), lambda row: bounds(row["ci95"])),
        (Column(f"5–95 % of {over}", right=True, rank=1), lambda row: bounds(row["spread90"])),
    )
    say("", *made.sentences(), f"Kept: {made.path}")
    if files:
        say("Files: " + ", ".join(map(str, files)))
