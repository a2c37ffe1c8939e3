"""`medplus quickstart`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medplus.cli import options
from medplus.cli.output import Output

if TYPE_CHECKING:
    from medplus.quickstart import Quickstart


@click.command()
@click.option(
    "--out",
    type=options.FOLDER,
    default="quickstart",
    help="Folder for data, embeddings, runs and report.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=200),
    default=600,
    help="Images per dataset.",
)
@options.device
@options.common
def quickstart(output: Output, out: Path, samples: int, device: str) -> None:
    """Go the whole way on synthetic data: from extract to predict. No download."""
    from medplus.quickstart import run_quickstart

    done = run_quickstart(
        out, samples=samples, device=device, progress=output.progress, watch=output.watch,
        tell=output.note,
    )  # fmt: skip
    document = {
        "root": str(done.root),
        "seconds": done.seconds,
        "stores": [extraction.to_dict() for extraction in done.extractions],
        "runs": [record.to_dict() for record in done.records],
        "report": str(done.report.files[0]),
        "predictions": str(done.predicted.path),
        "verdict": [verdict.to_dict() for verdict in done.report.analysis.verdicts],
    }
    output.result(document, lambda: _show(done))


def _show(done: Quickstart) -> None:
    from medplus.cli.report import show_verdicts
    from medplus.cli.tables import make_console, percent, print_tables

    analysis, console = done.report.analysis, make_console()
    print_tables([analysis.tables["benchmark"]])
    click.echo()
    show_verdicts(analysis.verdicts[-1:])
    root, run, frozen = done.root, done.finetuned, done.frozen
    name = run.backbone if run.weights != "none" else "resnet18"
    was = percent(frozen.metrics["test"]["acc"])
    acc, area = percent(run.metrics["test"]["acc"]), percent(run.metrics["test"]["auc"])
    console.print(
        f"""
Trained end to end for {run.epochs_run} epochs, {run.backbone} reaches ACC {acc} %, AUC {area} % \
on {run.dataset}, {run.size} px (frozen, with a probe: ACC {was} %).

These images are synthetic: the numbers show how things are done, and say nothing about medicine.

Where it lies ({done.seconds:.0f} s)
  {root}/data          the phantoms, in MedMNIST's npz layout
  {root}/embeddings    one Zarr store per dataset, size and backbone:
  {" " * len(str(root))}               medplus store ls --store {shlex.quote(f"{root}/embeddings")}
  {root}/runs          one folder per run: record.json, predictions.npz, weights;
  {" " * len(str(root))}               a fine-tuned one has its learning_curve.png
  {done.report.files[0]}
  {" " * len(str(root))}               tables, figures and tests on one page: open it in a browser
  {done.predicted.path}
  {" " * len(str(root))}               three images, of {root}/images: classes, nearest train images

Next, on real data
  medplus download breastmnist
  medplus compare breastmnist                 or a folder of your images: from data to a verdict
or step by step
  medplus extract --dataset breastmnist --size 28 --backbone {name}
  medplus knn     --dataset breastmnist --size 28 --backbone {name} --k 1,5,11
  medplus probe   --dataset breastmnist --size 28 --backbone {name} --recipe grid
  medplus finetune --dataset breastmnist --size 28 --backbone {name} --recipe modern
  medplus report  runs --out report --against paper
  medplus predict runs/probe/…/RUN IMAGES""",
        soft_wrap=True,
    )
