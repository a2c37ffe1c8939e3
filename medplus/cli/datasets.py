"""`medplus datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medplus.cli import options, specs
from medplus.cli.output import Output, say


@click.command()
@click.argument("paths", nargs=-1, metavar="[NAME|PATH]...")
@click.option("--size", type=options.AT_LEAST_1, help="At which size folders are read.")
@specs.choices("group_column")
@options.data_root
@options.common
def datasets(
    output: Output, data_root: Path, paths: tuple[str, ...], size: int | None,
    group_column: str | None,
) -> None:  # fmt: skip
    """List the 12 MedMNIST+ datasets, and which of their files are on disk.

    With the names or paths of datasets: show the data card of each, which says what was read as
    what, where its splits come from, and what to be careful of.
    """
    if paths:
        _show_cards(output, paths, size, group_column, data_root)
        return
    from medplus.datasets.catalog import FLAGS, info
    from medplus.vocabulary import SIZES

    known = [info(flag) for flag in FLAGS]
    on_disk = {d.flag: [s for s in SIZES if (data_root / d.filename(s)).is_file()] for d in known}
    document = {
        "datasets": [
            {
                "dataset": d.flag,
                "task": d.task,
                "classes": list(d.classes),
                "channels": d.channels,
                "samples": dict(d.n_samples),
                "licence": d.licence,
                "flaws": d.flaws,
                "sizes_on_disk": on_disk[d.flag],
                "md5": {str(size): digest for size, digest in d.md5.items()},
                "url": {str(size): url for size, url in d.url.items()},
            }
            for d in known
        ]
    }
    output.result(document, lambda: _show(known, on_disk, data_root))


def _show_cards(
    output: Output, paths: tuple[str, ...], size: int | None, group_column: str | None, root: Path
) -> None:
    from medplus.datasets.sources import load, resolve

    read = [
        load(resolve(path, group_column), size, root, group_column=group_column,
             progress=output.progress, say=False)
        for path in paths
    ]  # fmt: skip
    cards = [
        {"dataset": d.name, "path": d.path, "size": d.size, "digest": d.card.digest}
        | d.card.to_dict()
        for d in read
    ]

    def show() -> None:
        for dataset in read:
            say(f"{dataset.name}, {dataset.path} at {dataset.size} px")
            say(*(f"  {line}" for line in dataset.card.lines()))
            say(*(f"  WARNING: {warning}" for warning in dataset.card.warnings))

    output.result({"cards": cards}, show)


def _show(known: list[Any], on_disk: dict[str, list[int]], data_root: Path) -> None:
    from rich.table import Table

    from medplus.cli.tables import Column, make_console, print_rows

    print_rows(
        known,
        (Column("dataset"), lambda d: d.flag),
        (Column("task", least=18), lambda d: d.task),
        (Column("classes", right=True, rank=3), lambda d: len(d.classes)),
        (Column("channels", right=True, rank=1), lambda d: d.channels),
        (Column("train", right=True), lambda d: f"{d.n_samples['train']:,}"),
        (Column("val", right=True, rank=2), lambda d: f"{d.n_samples['val']:,}"),
        (Column("test", right=True), lambda d: f"{d.n_samples['test']:,}"),
        (Column("licence", least=12), lambda d: d.licence),
        (Column("on disk"), lambda d: ", ".join(map(str, on_disk[d.flag])) or "none"),
    )
    console = make_console()
    where = f"on disk: the sizes whose file lies in {data_root}"
    console.print(where, soft_wrap=True)
    console.print("\nKnown flaws")
    flaws = Table.grid(padding=(0, 2, 0, 0))
    for d in known:
        if d.flaws:
            flaws.add_row(d.flag, d.flaws)
    console.print(flaws)
