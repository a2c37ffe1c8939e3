"""`medplus compare`."""

from __future__ import annotations

from typing import Any, get_args

import click

from medplus.cli import options, specs
from medplus.cli.output import Output
from medplus.vocabulary import Fit


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@options.several(
    "--backbone",
    "backbones",
    callback=options.named_code,
    help="As for medplus extract; repeat or use commas.  [default: pixels, and all networks of the "
    "demo and of the paper whose weights are at hand]",
)
@options.several(
    "--size",
    "sizes",
    of=options.AT_LEAST_1,
    help="In pixels; repeat or use commas.  [default: those on disk of a MedMNIST flag, a file's "
    "own, 64 and 224 of a folder whose images are that large]",
)
@options.several(
    "--fit",
    "fits",
    of=click.Choice(get_args(Fit)),
    help="How images are brought to a network's input; repeat or use commas.  [default: pad]",
)
@specs.axes("weights")
@specs.choices("precision", "group_column")
@options.several(
    "--protocol",
    "protocols",
    of=click.Choice(["knn", "probe", "finetune"]),
    default=["knn,probe"],
    help="What is compared; repeat or use commas.",
)
@click.option(
    "--budget",
    "budget_s",
    type=options.seconds,
    metavar="TIME",
    help="90s, 30m, 2h: what does not fit is left out, the dearest first.  [default: none]",
)
@click.option(
    "--out",
    type=options.FOLDER,
    default="comparison",
    help="Folder of embeddings, runs and report.",
)
@options.device
@options.data_root
@options.common
def compare(output: Output, data: tuple[str, ...], **settings: Any) -> None:
    """Compare backbones on DATA, and say which to take: embeddings, kNN, probes, verdict, page.

    DATA is a MedMNIST flag, an npz file or a folder of images; or several. What is there is used
    again, so the same command goes on where it was interrupted.
    """
    from medplus.comparison import compare as run_comparison

    done = run_comparison(
        data, progress=output.progress, watch=output.watch, tell=output.note, **settings
    )
    page = done.report.files[0]
    document = {
        "stores": [extraction.to_dict() for extraction in done.extractions],
        "runs": [record.to_dict() for record in done.records],
        "verdict": [verdict.to_dict() for verdict in done.verdicts],
        "left": list(done.left),
        "report": str(page),
        "seconds": done.seconds,
    }

    def show() -> None:
        from medplus.cli.report import show_answer

        show_answer(done.report.analysis)
        click.echo(f"Tables, figures and a page: {page}")

    output.result(document, show)
