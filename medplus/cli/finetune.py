"""`medplus finetune`."""

from __future__ import annotations

from typing import Any

import click

from medplus.cli import options
from medplus.cli.output import Output
from medplus.cli.recipes import finetune_options
from medplus.cli.specs import TRAIN, making
from medplus.errors import UsageError
from medplus.spec import ExtractSpec


def batch_size(value: object) -> int | str:
    """Return a number of images, or ``auto``: the type of an option."""
    text = str(value)  # a config file may hold a number
    if text == "auto":
        return text
    try:
        return options.AT_LEAST_1.convert(int(text), None, None)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor auto") from None


@click.command()
@making(*TRAIN)
@options.seeds("the paper's first", "One network each. ")
@click.option(
    "--recipe",
    default="paper",
    help="paper, modern, or a YAML file; configs/recipes/ holds both as files to start from.",
)
@click.option(
    "--batch-size",
    type=batch_size,
    metavar="INTEGER|auto",
    help="Images per step, over all devices; auto: the recipe's, halved until a step fits into "
    "memory.  [default: the recipe's]",
)
@finetune_options
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Train through torch.compile: slow start, then fast.",
)
@options.device
@click.option(
    "--devices",
    type=options.AT_LEAST_1,
    default=1,
    help="Processes, each with a GPU or a share of the cores.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Go on from the saved state of an interrupted run, or begin again.",
)
@options.overwrite
@click.option(
    "--keep",
    type=click.Choice(["best", "all"]),
    default="best",
    help="What stays of a finished run: the best network, or the last training state too.",
)
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Tell a tracker of every epoch (its package must be installed).",
)
@options.folding
@options.several(
    "--fold",
    "fold",
    of=click.IntRange(min=0),
    help="With --folds: train these alone, counted from 0 through the repeats; those of a repeat "
    "are joined once the last is finished. Repeat or use commas.  [default: all]",
)
@options.data_root
@options.runs_root
@options.common
def finetune(
    output: Output, specs: list[ExtractSpec], seeds: tuple[int, ...] | None, **settings: Any
) -> None:
    """Train whole networks end to end and score the best on val and test.

    A finished run is left alone. Interrupt it whenever you like: the same command goes on where it
    stopped. What is not said below is the recipe's.
    """
    from medplus.training import finetune_all
    from medplus.vocabulary import PAPER_SEEDS

    if settings["fold"] is not None and settings["folds"] is None:
        raise UsageError("--fold goes with --folds; name both")
    records = finetune_all(
        specs,
        seeds or PAPER_SEEDS[:1],
        watch=output.watch,
        progress=output.progress,
        **settings,
    )
    output.records(records)
