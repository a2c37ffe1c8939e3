"""`medplus package`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.options import Output
from medplus.errors import UsageError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("run", metavar="[RUN]", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="A new folder, or a .zip.")
@click.option(
    "--check",
    "checked",
    metavar="PACKAGE",
    type=click.Path(path_type=Path),
    help="Instead: prove that a package computes here what it computed where it was made.",
)
@click.option("--positive", metavar="CLASS", help="The class that matters, for the card's results.")
@options.several("--by", help="Column of the dataset's table: subgroups for the card.")
@click.option("--audit", type=_FILE, help="The suspects.csv of medplus audit, for the card.")
@click.option("--exclude", type=_FILE, help="The table of suspects that RUN was made without.")
@click.option(
    "--backbone",
    callback=options.named_code,
    metavar="FILE.py[:FUNCTION]",
    help="The Python file that defines the network of RUN: it runs only when you name it.",
)
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
            lambda: click.echo(f"{checked}: intact, scores differ by {worst:.1e} at most"),
        )
        return
    if run is None or out is None:
        raise UsageError("name a run and a folder: medplus package RUN --out DIR")
    made = write_package(run, out, store=store_root, by=by or (), **settings)
    for note in made.notes:
        output.note(note)

    def show() -> None:
        click.echo(f"{made.path}: scores differ by {made.patterns:.1e} at most on test patterns")
        if made.test is not None:
            click.echo(f"and by {made.test:.1e} at most from the run's own on its test images")
        click.echo(f"Try it: cd {made.path} && python medplus_model.py IMAGE.png")

    output.result(made.to_dict(), show)
