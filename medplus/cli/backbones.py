"""`medplus backbones`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from medplus.cli import options
from medplus.cli.options import Output


@click.command()
@click.argument("names", nargs=-1)
@options.common
def backbones(output: Output, names: tuple[str, ...]) -> None:
    """List backbones: the paper's ten and `pixels`, or those NAMED (any timm name)."""
    from medplus.backbones.catalog import PAPER, PIXELS, describe

    known = [describe(name) for name in (names or (*PAPER, PIXELS))]
    document = {"backbones": [asdict(info) for info in known]}
    output.result(document, lambda: _show(known))


def _show(known: list[Any]) -> None:
    from medplus.cli.tables import Column, make_console, print_table

    columns = (
        Column("backbone"), Column("full tag", least=22), Column("dim", right=True),
        Column("parameters", right=True), Column("native px", right=True, rank=4),
        Column("mean", rank=2), Column("std", rank=1), Column("licence", rank=3),
    )  # fmt: skip
    rows = [
        (
            info.name,
            info.tag,
            str(info.dim),
            f"{info.n_parameters / 1e6:.1f} M" if info.n_parameters else "–",
            str(info.native_size or "any"),
            " ".join(f"{value:.3f}" for value in info.mean),
            " ".join(f"{value:.3f}" for value in info.std),
            info.licence,
        )
        for info in known
    ]
    print_table(columns, rows)
    make_console().print(
        "dim is that of the pre-logits; for pixels, per channel of images of 28 px and above. "
        "Any other timm name works too.",
    )
