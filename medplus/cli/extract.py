"""`medplus extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.output import Output
from medplus.cli.specs import EXTRACT, making
from medplus.spec import ExtractSpec


@click.command()
@making(*EXTRACT)
@click.option(
    "--batch-size",
    type=options.AT_LEAST_1,
    help="Images per forward.  [default: the fastest, measured once on this machine]",
)
@click.option(
    "--window/--no-window",
    default=True,
    help="Of padded images compute only what they can change, or always the whole canvas; the "
    "embeddings are the same up to rounding.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the network first, or never; the embeddings are the same up to rounding.  "
    "[default: where so many images are left that it pays]",
)
@options.device
@options.data_root
@options.store_root
@options.common
def extract(output: Output, specs: list[ExtractSpec], store_root: Path, **settings: Any) -> None:
    """Run frozen backbones over datasets, once, and fill embedding stores.

    A complete store is left alone; a partial or damaged one is completed. Interrupt it whenever
    you like: the same command goes on where it stopped.
    """
    from medplus.embeddings.extract import extract_all

    extractions = extract_all(specs, store=store_root, progress=output.progress, **settings)

    def show() -> None:
        from medplus.cli.tables import print_extractions

        print_extractions(extractions)

    output.result({"stores": [extraction.to_dict() for extraction in extractions]}, show)
