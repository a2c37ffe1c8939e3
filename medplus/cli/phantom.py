"""`medplus phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options
from medplus.cli.output import Output


@click.command()
@options.several(
    "--dataset",
    "datasets",
    required=True,
    help="Datasets to imitate, or all; repeat or use commas.",
)
@options.pixel_sizes
@click.option(
    "--out",
    type=options.FOLDER,
    required=True,
    help="Folder to write to; real datasets there are never overwritten.",
)
@click.option(
    "--samples",
    type=int,
    help="Images in total over the three splits.  [default: as the original, at most 1200]",
)
@click.option("--seed", type=int, default=0, help="Another seed, other images.")
@click.option(
    "--difficulty",
    type=float,
    default=0.5,
    help="From 0 (classes apart) to 1 (classes overlap).",
)
@click.option(
    "--preview", type=options.FILE, help="Also save a contact sheet of every class as a PNG."
)
@options.common
def phantom(
    output: Output,
    datasets: tuple[str, ...],
    sizes: tuple[int, ...],
    out: Path,
    preview: Path | None,
    samples: int | None,
    **painted: Any,
) -> None:
    """Write synthetic stand-ins for datasets, in MedMNIST's npz layout.

    The same scenes are rendered at every size. Scores on them say nothing about medicine.
    """
    from medplus.datasets.phantom import contact_sheet, split_counts, write_phantoms
    from medplus.datasets.sources import expand
    from medplus.errors import DatasetError, writing

    flags = expand(datasets)
    # Every name is checked before the first file is written.
    splits = {flag: split_counts(flag, samples) for flag in flags}
    written: list[dict[str, Any]] = []
    remedy = "free space or name another place with --out and --preview"
    with writing(out, remedy, DatasetError):
        for flag in flags:
            paths = write_phantoms(flag, sizes, out, samples=samples, **painted)
            for size, path in zip(sizes, paths, strict=True):
                entry = {"path": str(path), "dataset": flag, "size": size, **painted}
                written.append({**entry, "splits": splits[flag]})
    if preview is not None:
        with writing(preview, remedy, DatasetError):
            preview.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(flags, size=max(sizes), **painted).save(preview, format="PNG")
    shown = None if preview is None else str(preview)
    output.result({"phantoms": written, "preview": shown}, lambda: _show(written, preview))


def _show(written: list[dict[str, Any]], preview: Path | None) -> None:
    for entry in written:
        counts = ", ".join(f"{split} {count}" for split, count in entry["splits"].items())
        total = sum(entry["splits"].values())
        click.echo(f"{entry['path']}  {entry['size']} px  {total} images  ({counts})")
    if preview is not None:
        click.echo(f"{preview}  contact sheet")
