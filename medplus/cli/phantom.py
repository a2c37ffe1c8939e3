"""`medplus phantom`: write synthetic stand-ins for the datasets."""

from __future__ import annotations

from pathlib import Path

import click

from medplus.datasets.catalog import FLAGS
from medplus.vocabulary import SIZES


def _listed(given: tuple[str, ...], everything: tuple[str, ...]) -> list[str]:
    """Split repeated and comma-separated values; ``all`` stands for everything."""
    names = [name.strip() for value in given for name in value.split(",") if name.strip()]
    return list(dict.fromkeys(everything if "all" in names else names))


def _sizes(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[int]:
    """Parse ``--size``; the message names what is not a number."""
    listed = _listed(value, tuple(map(str, SIZES)))
    if wrong := [size for size in listed if not size.isdecimal()]:
        raise click.BadParameter(f"'{wrong[0]}' is not a number of pixels", context, parameter)
    return [int(size) for size in listed]


@click.command("phantom")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    callback=lambda _context, _parameter, value: _listed(value, FLAGS),
    help="Dataset to imitate; repeat, separate by commas, or 'all'.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=("28",),
    show_default="28",
    callback=_sizes,
    help="Pixels per side: 28, 64, 128, 224; repeat, separate by commas, or 'all'.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write to; real datasets there are never overwritten.",
)
@click.option(
    "--samples",
    type=int,
    help="Images in total over the three splits  [default: as the original, at most 1200]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other images.")
@click.option(
    "--difficulty",
    type=float,
    default=0.5,
    show_default=True,
    help="From 0 (classes apart) to 1 (classes overlap).",
)
@click.option(
    "--preview",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also save a contact sheet of every class as a PNG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def phantom(
    datasets: list[str],
    sizes: list[int],
    out: Path,
    samples: int | None,
    seed: int,
    difficulty: float,
    preview: Path | None,
    as_json: bool,
) -> None:
    """Write synthetic stand-ins for datasets, in MedMNIST's npz layout.

    The same scenes are rendered at every size. Scores on them say nothing about medicine.
    """
    import json

    from medplus.datasets.phantom import contact_sheet, split_counts, write_phantoms

    # Every argument is checked before the first file is written.
    splits = {flag: split_counts(flag, samples) for flag in datasets}
    written = []
    for flag in datasets:
        paths = write_phantoms(flag, sizes, out, samples=samples, seed=seed, difficulty=difficulty)
        for size, path in zip(sizes, paths, strict=True):
            entry = {"path": str(path), "dataset": flag, "size": size, "seed": seed}
            written.append({**entry, "difficulty": difficulty, "splits": splits[flag]})
            if not as_json:
                counts = " ".join(f"{split} {count}" for split, count in splits[flag].items())
                click.echo(f"{path}  {size} px  {sum(splits[flag].values())} images  ({counts})")
    if preview is not None:
        preview.parent.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet(datasets, size=max(sizes), seed=seed, difficulty=difficulty)
        sheet.save(preview, format="PNG")
        if not as_json:
            click.echo(f"{preview}  contact sheet at {max(sizes)} px")
    if as_json:
        shown = None if preview is None else str(preview)
        click.echo(json.dumps({"phantoms": written, "preview": shown}))
