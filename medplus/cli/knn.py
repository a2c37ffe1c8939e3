"""`medplus knn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.options import Output
from medplus.cli.specs import select_stores, selecting


@click.command()
@selecting
@options.several(
    "--k",
    "k",
    of=click.IntRange(min=1),
    default=["11"],
    show_default=True,
    help="Numbers of neighbours; repeat or use commas, one search serves them all.",
)
@click.option(
    "--metric",
    type=click.Choice(["l2", "cosine"]),
    default="l2",
    show_default=True,
    help="Euclidean or cosine distance.",
)
@click.option(
    "--vote",
    type=click.Choice(["majority", "distance"]),
    default="majority",
    show_default=True,
    help="Neighbours count the same, or by 1 / distance.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "faiss", "torch"]),
    default="auto",
    show_default=True,
    help="What searches; auto is faiss, wherever it can use the device.",
)
@options.runs_root
@click.option("--overwrite", is_flag=True, help="Compute runs again that exist.")
@options.common
def knn(
    output: Output,
    k: tuple[int, ...],
    metric: str,
    vote: str,
    backend: str,
    device: str,
    runs: Path,
    overwrite: bool,
    **selection: Any,
) -> None:
    """Score k-nearest neighbours on stored embeddings, on val and test.

    The defaults are the paper's: k = 11, Euclidean distance, majority vote. ★ marks the k with the
    best val accuracy.
    """
    stores = select_stores(device=device, **selection)
    from medplus.heads.knn import knn as run_knn

    records = run_knn(
        stores,
        k,
        metric=metric,
        vote=vote,
        backend=backend,
        device=device,
        runs=runs,
        overwrite=overwrite,
    )

    def show() -> None:
        from medplus.cli.tables import print_records

        print_records(records)

    output.result({"runs": [record.to_dict() for record in records]}, show)
