"""`medplus predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say

if TYPE_CHECKING:
    from medplus.prediction.predict import Predicted

_FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("run", metavar="RUN", type=options.PATH)
@click.argument("images", metavar="IMAGES...", type=options.PATH, nargs=-1, required=True)
@click.option(
    "--out",
    type=options.FILE,
    default="predictions.csv",
    help="The table; a JSON file beside it says what was assumed.",
)
@click.option(
    "--positive", metavar="CLASS", help="The class to decide on, by name; it is never assumed."
)
@click.option(
    "--sensitivity",
    type=_FRACTION,
    help="Least of --positive, on val, where the threshold is chosen.  [default: 0.95]",
)
@click.option("--specificity", type=_FRACTION, help="Least of --positive, on val, instead.")
@click.option("--threshold", type=_FRACTION, help="From this score on --positive, instead.")
@click.option("--calibrated", is_flag=True, help="Scale scores by the temperature that suits val.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Of an npz file in a dataset's layout.  [default: test]",
)
@click.option(
    "--policy",
    type=click.Choice(["squash", "crop", "pad"]),
    help="How images become square, where the run's own came square in an npz file.",
)
@click.option(
    "--exclude", type=options.FILE, help="The suspects.csv that the run was made without."
)
@click.option(
    "--backbone",
    metavar="NAME",
    callback=options.named_code,
    help="Where the backbone is now; a Python file runs only when you name it.",
)
@options.network_precision("the run's own")
@options.batch_size
@click.option("--overwrite", is_flag=True, help="Replace a table of something else.")
@options.device
@options.store_or_root
@options.common
def predict(
    output: Output,
    run: Path,
    images: tuple[Path, ...],
    out: Path,
    store_root: Path | str,
    **settings: Any,
) -> None:
    """Predict IMAGES with a saved RUN: files, folders, npz files, DICOM.

    RUN is the folder of any run of medplus probe, knn or finetune. The table has a row for each
    image: class, probabilities, the distance to the nearest train image and whether it is unlike
    anything in train, or why it cannot be read. The same command goes on after an interruption.

    \b
    medplus predict runs/probe/…/RUN scans/ --out predictions.csv
    medplus predict runs/probe/…/RUN a.png b.dcm --positive malignant --sensitivity 0.95
    """  # noqa: D301 - click wants the control character
    from medplus.prediction.predict import predict as predict_images

    found = predict_images(run, images, out, store=store_root, progress=output.progress, **settings)
    document = found.document
    output.result(
        {"path": str(found.path), "status": found.status, **document}, lambda: _show(found)
    )
    if not document["n_predicted"]:
        raise click.exceptions.Exit(1)


def _show(found: Predicted) -> None:
    from medplus.prediction.predict import summarise

    there = " (it was there already)" if found.status == "skipped" else ""
    say(*summarise(found.document), f"Table: {found.path}{there}")
