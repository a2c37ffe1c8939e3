"""`medplus probe`."""

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
@click.option(
    "--recipe",
    type=click.Choice(["paper", "grid", "lbfgs", "ridge"]),
    default="paper",
    help="paper: lr 1e-4, weight decay 0.01; grid: 13 learning rates, the best by val; lbfgs: "
    "logistic regression to convergence, and ridge: ridge regression, both for 13 strengths.",
)
@options.seeds("the paper's three")
@options.gradual("the recipe's")
@options.several(
    "--weight-decay", "weight_decay", of=click.FLOAT, help="Decoupled.  [default: 0.01]"
)
@options.several(
    "--strength",
    "strength",
    of=click.FLOAT,
    help="C of lbfgs, alpha of ridge; repeat or use commas.  [default: 1e-6 to 1e6]",
)
@options.exclude
@options.runs_root
@options.overwrite
@options.folding
@options.common
def probe(output: Output, stores: list[EmbeddingStore], **settings: Any) -> None:
    """Train linear probes on stored embeddings and score them on val and test.

    All seeds, learning rates and weight decays train at once. ★ marks each seed's best setting by
    val accuracy.
    """
    from medplus.heads.probe import probe as run_probe

    output.records(run_probe(stores, progress=output.progress, **settings))
