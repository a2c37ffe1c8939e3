"""`medplus package`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.errors import UsageError


@click.command()
@click.argument("run", metavar="[RUN]", type=options.PATH, required=False)
@click.option("--out", type=options.PATH, help="A new folder, or a .zip.")
@click.option(
    "--check",
    "checked",
    metavar="PACKAGE",
    type=options.PATH,
    help="Instead: prove that a package computes here what it computed where it was made.",
)
@click.option("--positive", metavar="CLASS", help="The class that matters, for the card's results.")
@options.several("--by", help="Column of the dataset's table: subgroups for the card.")
@click.option("--audit", type=options.FILE, help="The suspects.csv of medplus audit, for the card.")
@click.option("--exclude", type=options.FILE, help="The suspects.csv that RUN was made without.")
@options.code("backbone")
@options.data_root
@options.store_or_root
@options.common
def package(
    output: Output,
    run: Path | None,
    out: Path | None,
    checked: Path | None,
    store_root: Path | str,
    by: tuple[str, ...] | None,
    **settings: Any,
) -> None:
    """Write a RUN as one model that needs medplus no more.

    A folder with ONNX and torch.export programs from pixels to scores, a loader that needs numpy
    and onnxruntime only, a model card, and test patterns that prove that it is the same model. It
    is written only where its scores are those of the run.

    \b
    medplus package runs/probe/…/RUN --out model
    medplus package --check model
    """  # noqa: D301 - click wants the control character
    from medplus.packaging import check
    from medplus.packaging import package as write_package

    if checked is not None:
        if run is not None or out is not None:
            raise UsageError("--check PACKAGE stands alone: leave RUN and --out out")
        worst = check(checked)
        output.result(
            {"package": str(checked), "difference": worst},
            lambda: say(f"{checked}: intact, scores differ by {worst:.1e} at most"),
        )
        return
    if run is None or out is None:
        raise UsageError("name a run and a folder: medplus package RUN --out DIR")
    made = write_package(run, out, store=store_root, by=by or (), **settings)
    for note in made.notes:
        output.note(note)

    def show() -> None:
        say(f"{made.path}: scores differ by {made.patterns:.1e} at most on test patterns")
        if made.test is not None:
            say(f"and by {made.test:.1e} at most from the run's own on its test images")
        say(f"Try it: cd {made.path} && python medplus_model.py IMAGE.png")

    output.result(made.to_dict(), show)
