"""`medplus probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.options import Output
from medplus.cli.specs import select_stores, selecting


@click.command()
@selecting
@click.option(
    "--recipe",
    type=click.Choice(["paper", "grid"]),
    default="paper",
    show_default=True,
    help="paper: lr 1e-4, weight decay 0.01; grid: 13 learning rates, the best by val.",
)
@options.several(
    "--seed",
    "seeds",
    of=click.IntRange(0, 2**63 - 1),
    help="Repeat or use commas.  [default: the paper's three]",
)
@options.several("--lr", "lr", of=click.FLOAT, help="Learning rates.  [default: the recipe's]")
@options.several(
    "--weight-decay", "weight_decay", of=click.FLOAT, help="Decoupled.  [default: 0.01]"
)
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Passes over train, at most.  [default: 100]"
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows per step.  [default: 64]")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Stop after so many epochs without a better val loss.  [default: 5]",
)
@options.runs_root
@click.option("--overwrite", is_flag=True, help="Compute runs again that exist.")
@options.common
def probe(
    output: Output,
    recipe: str,
    seeds: tuple[int, ...] | None,
    lr: tuple[float, ...] | None,
    weight_decay: tuple[float, ...] | None,
    epochs: int | None,
    batch_size: int | None,
    patience: int | None,
    device: str,
    runs: Path,
    overwrite: bool,
    **selection: Any,
) -> None:
    """Train linear probes on stored embeddings and score them on val and test.

    All seeds, learning rates and weight decays train at once. ★ marks each seed's best setting by
    val accuracy.
    """
    stores = select_stores(device=device, **selection)
    from medplus.heads.probe import probe as run_probe

    records = run_probe(
        stores,
        seeds,
        lr=lr,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        recipe=recipe,
        device=device,
        runs=runs,
        overwrite=overwrite,
        progress=output.progress,
    )

    def show() -> None:
        from medplus.cli.tables import print_records

        print_records(records)

    output.result({"runs": [record.to_dict() for record in records]}, show)
