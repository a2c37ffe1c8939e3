"""`medplus evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.output import Output


@click.command()
@click.argument("runs", metavar="RUN...", type=options.PATH, nargs=-1, required=True)
@click.option(
    "--dataset",
    help="MedMNIST flag, or path of an npz file or a folder of images, with the same task and "
    "classes.  [default: the run's own]",
)
@click.option("--size", type=options.AT_LEAST_1, help="In pixels.  [default: the run's own]")
@options.several(
    "--split",
    "splits",
    of=click.Choice(["train", "val", "test", "all"]),
    default=["val,test"],
    help="What to score; repeat or use commas. Or all: every image of other data, as one test set.",
)
@options.network_precision("what it was trained at")
@options.batch_size
@options.code()
@click.option(
    "--csv",
    type=options.FOLDER,
    help="Also write predictions there, as MedMNIST's evaluator reads them.",
)
@options.device
@options.data_root
@options.store_or_root
@options.common
def evaluate(
    output: Output, runs: tuple[Path, ...], store_root: Path | str, **settings: Any
) -> None:
    """Score the saved network or head of each RUN again, or on other data of the same classes.

    A RUN is the folder of a run of medplus finetune, which is scored on images, or of medplus
    probe, which is scored on stored embeddings. Record and predictions go to the run's folder,
    under evaluations.
    """
    from medplus.evaluation import evaluate as evaluate_run

    records = [
        evaluate_run(run, store=store_root, progress=output.progress, **settings)
        for run in dict.fromkeys(runs)
    ]
    output.records(records)
