"""`medplus finetune`."""

from __future__ import annotations

from typing import Any

import click

from medplus.cli import options, specs
from medplus.cli.options import Output
from medplus.cli.recipes import finetune_options
from medplus.errors import UsageError


class BatchSize(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A number of images, or ``auto``."""

    name = "integer|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or ``auto``."""
        if value == "auto":
            return "auto"
        try:
            number = int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return int(click.IntRange(min=1).convert(number, param, ctx))


@click.command()
@options.names(default_size="28; a file's own; a folder's, else 224")
@options.several(
    "--seed",
    "seeds",
    of=click.IntRange(0, 2**63 - 1),
    help="One network per seed; repeat or use commas.  [default: the paper's first]",
)
@click.option(
    "--recipe",
    default="paper",
    show_default=True,
    help="paper, modern, or a YAML file; configs/recipes/ holds both as files to start from.",
)
@specs.choices(*specs.TRAIN)
@click.option(
    "--batch-size",
    type=BatchSize(),
    help="Images per step, over all devices; auto: the recipe's, halved until a step fits into "
    "memory.  [default: the recipe's]",
)
@finetune_options(leave_out={"batch_size"})
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Train through torch.compile: slow start, then fast.",
)
@options.device
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes, each with a GPU or a share of the cores.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on from the saved state of an interrupted run, or begin again.",
)
@click.option("--overwrite", is_flag=True, help="Train finished runs again.")
@click.option(
    "--keep",
    type=click.Choice(["best", "all"]),
    default="best",
    show_default=True,
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
    output: Output,
    datasets: tuple[str, ...],
    sizes: tuple[str, ...] | None,
    backbones: tuple[str, ...],
    seeds: tuple[int, ...] | None,
    **settings: Any,
) -> None:
    """Train whole networks end to end and score the best on val and test.

    A finished run is left alone. Interrupt it whenever you like: the same command goes on where it
    stopped. What is not said below is the recipe's.
    """
    from medplus.training import finetune_all
    from medplus.vocabulary import PAPER_SEEDS

    if settings["fold"] is not None and settings["folds"] is None:
        raise UsageError("--fold goes with --folds; name both")
    chosen = {name: settings.pop(name) for name in specs.TRAIN}
    records = finetune_all(
        specs.to_specs(datasets, sizes, backbones, **chosen),
        seeds or PAPER_SEEDS[:1],
        watch=output.watch,
        progress=output.progress,
        **settings,
    )
    output.records(records)
