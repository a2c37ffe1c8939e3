"""`medplus extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.options import Output


@click.command()
@options.names(default_size="28, or an npz file's own")
@click.option(
    "--weights",
    default="pretrained",
    show_default=True,
    help="pretrained, none (random), a .safetensors or .pth file, or a folder that medplus "
    "backbones --fetch … --to wrote; a fine-tuned run has its own.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Precision of the computation; auto is what the hardware runs natively.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How embeddings are stored.",
)
@click.option(
    "--fit",
    type=click.Choice(["pad", "resize", "native"]),
    help="Zero-pad to the backbone's input (the paper's way), resize to it, or neither.  "
    "[default: pad, or as a fine-tuned run was trained]",
)
@click.option(
    "--feature",
    default="prelogits",
    show_default=True,
    metavar="prelogits|cls|avg|cls+avg|layer:NAME",
    help="What of the network is stored: what its classifier would see; class token, mean of the "
    "patch tokens, or both; or the averaged output of a module inside.",
)
@options.group_column
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images per forward.  [default: automatic]"
)
@options.device
@options.data_root
@options.store_root
@options.common
def extract(
    output: Output,
    datasets: tuple[str, ...],
    sizes: tuple[str, ...] | None,
    backbones: tuple[str, ...],
    store_root: Path,
    **settings: Any,
) -> None:
    """Run frozen backbones over datasets, once, and fill embedding stores.

    A complete store is left alone; a partial or damaged one is completed. Interrupt it whenever
    you like: the same command goes on where it stopped.
    """
    from medplus.embeddings.extract import extract_all

    extractions = extract_all(
        options.expand_datasets(datasets),
        options.expand_sizes(sizes),
        options.expand_backbones(backbones),
        store=store_root,
        progress=output.progress,
        **settings,
    )

    def show() -> None:
        from medplus.cli.tables import print_extractions

        print_extractions(extractions)

    output.result({"stores": [extraction.to_dict() for extraction in extractions]}, show)
