"""`medplus knn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output
from medplus.cli.specs import selecting

if TYPE_CHECKING:
    from medplus.embeddings.store import EmbeddingStore


@click.command()
@selecting
@options.several(
    "--k",
    "k",
    of=options.AT_LEAST_1,
    default=["11"],
    help="Numbers of neighbours; repeat or use commas, one search serves them all.",
)
@click.option(
    "--metric",
    type=click.Choice(["l2", "cosine"]),
    default="l2",
    help="Euclidean or cosine distance.",
)
@click.option(
    "--vote",
    type=click.Choice(["majority", "distance"]),
    default="majority",
    help="Neighbours count the same, or by 1 / distance.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "faiss", "torch", "bf16"]),
    default="auto",
    help="What searches; auto is what is fastest here. Neighbours are the same.",
)
@options.exclude
@options.runs_root
@options.overwrite
@options.folding
@options.common
def knn(output: Output, stores: list[EmbeddingStore], **settings: Any) -> None:
    """Score k-nearest neighbours on stored embeddings, on val and test.

    The defaults are the paper's: k = 11, Euclidean distance, majority vote. ★ marks the k with the
    best val accuracy.
    """
    from medplus.heads.knn import knn as run_knn

    output.records(run_knn(stores, **settings))
