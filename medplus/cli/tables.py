"""Results as tables for a person to read, in whatever width the terminal has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from medplus.embeddings.extract import Extraction
    from medplus.runs.record import RunRecord

_PIPE_WIDTH = 1000
_GAP = 2


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    right : bool
        Numbers stand on the right.
    rank : int
        Where the table is wider than the terminal, columns of rank 1 are left out first, then
        those of rank 2, …; columns of rank 0 never.
    least : int or None
        How narrow its text may be folded, in characters; None for text that is to stay whole.
    """

    name: str
    right: bool = False
    rank: int = 0
    least: int | None = None


def make_console() -> Console:
    """Return a console for stdout; in a pipe it is so wide that nothing is cut."""
    # Names may hold [brackets] and :colons:, which are no markup here.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, made to fit the terminal, and say what of it did not fit."""
    console = make_console()
    same, kept = fit_columns(columns, rows, console.width)
    if same:
        shared = (f"{columns[i].name} {rows[0][i]}" for i in same)
        console.print(", ".join(shared))
        console.print()
    table = Table(
        box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    for i, width in zip(kept, _widths(columns, rows, kept, console.width), strict=True):
        table.add_column(
            columns[i].name,
            justify="right" if columns[i].right else "left",
            overflow="fold",  # an identifier on two lines is worth more than half of one
            width=width,
        )
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    console.print(table)
    missing = [columns[i].name for i in range(len(columns)) if i not in {*same, *kept}]
    if missing:
        text = f"({', '.join(missing)}: in a wider terminal, or with --json)"
        console.print(text)


def fit_columns(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], list[int]]:
    """Choose what a table of `width` characters shows.

    Returns
    -------
    same, kept : list of int
        Columns that are told once above the table, since all rows agree in them, and those that
        remain in it. As long as the whole table fits, all remain.
    """
    same: list[int] = []
    kept = list(range(len(columns)))

    def too_wide() -> bool:
        return _spare(columns, rows, kept, width) < 0

    for i in range(len(columns)):
        if too_wide() and len(rows) > 1 and len({row[i] for row in rows}) == 1:
            same.append(i)
            kept.remove(i)
    for i in sorted(kept, key=lambda i: columns[i].rank):
        if too_wide() and columns[i].rank:
            kept.remove(i)
    return same, kept


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], kept: Sequence[int], width: int
) -> list[int | None]:
    """Share the width out: what is left over goes to the columns that would be folded."""
    spare = _spare(columns, rows, kept, width)
    if spare < 0:
        return [None] * len(kept)  # a very narrow terminal: everything is folded
    widths: list[int | None] = []
    for i in kept:
        needed, whole = _needed(columns, rows, i), _whole(columns, rows, i)
        more = min(spare, whole - needed)
        spare -= more
        widths.append(needed + more)
    return widths


def _spare(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], kept: Sequence[int], width: int
) -> int:
    gaps = _GAP * (len(kept) - 1)
    return width - gaps - sum(_needed(columns, rows, i) for i in kept)


def _whole(columns: Sequence[Column], rows: Sequence[Sequence[str]], i: int) -> int:
    return max(cell_len(text) for text in (columns[i].name, *(row[i] for row in rows)))


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]], i: int) -> int:
    whole, least = _whole(columns, rows, i), columns[i].least
    return whole if least is None else min(whole, max(cell_len(columns[i].name), least))


def print_extractions(extractions: Sequence[Extraction]) -> None:
    """Print what was extracted, and where it lies."""
    columns = (
        Column("dataset"), Column("size", right=True), Column("backbone"),
        Column("dim", right=True, rank=3), Column("images", right=True, rank=2), Column("status"),
        Column("chunks computed", right=True, rank=4), Column("img/s", right=True),
        Column("store", rank=1),
    )  # fmt: skip
    rows = []
    for extraction in extractions:
        info = extraction.store.info
        rate = extraction.images_per_second
        chunks = extraction.chunks_computed + extraction.chunks_reused
        rows.append(
            (
                info.dataset,
                str(info.size),
                info.backbone,
                str(info.dim),
                str(sum(info.n_samples.values())),
                extraction.status,
                f"{extraction.chunks_computed} of {chunks}",
                "" if rate is None else f"{rate:.0f}",
                str(extraction.store.path),
            )
        )
    print_table(columns, rows)


def print_records(records: Sequence[RunRecord]) -> None:
    """Print the scores of runs, one row each; accuracies and AUC in percent."""
    knn = all(record.protocol == "knn" for record in records)
    own = (
        (Column("k", right=True),)
        if knn
        else (
            Column("seed", right=True), Column("lr", right=True), Column("wd", right=True),
            Column("epochs", right=True, rank=3),
        )
    )  # fmt: skip
    columns = (
        Column("dataset"), Column("size", right=True), Column("backbone"), *own,
        Column("val ACC", right=True), Column("test ACC", right=True), Column("95 % CI", rank=4),
        Column("test AUC", right=True), Column("bal. ACC", right=True, rank=2),
        Column("ECE", right=True, rank=1),
    )  # fmt: skip
    # A choice is worth marking only where there was one.
    choices = len(records) > len({(r.store["key"], r.seed) for r in records})
    rows = []
    for record in records:
        val, test = record.metrics["val"], record.metrics["test"]
        star = "★ " if choices and record.selected else ""
        rows.append(
            (
                record.dataset,
                str(record.size),
                record.backbone,
                *_own_cells(record, knn),
                star + percent(val["acc"]),
                percent(test["acc"]),
                _interval(test.get("acc_ci95")),
                percent(test["auc"]),
                percent(test["balanced_accuracy"]),
                f"{test['ece']:.3f}" if test.get("ece") is not None else "–",
            )
        )
    print_table(columns, rows)
    console = make_console()
    console.print()
    for line in _remarks(records):
        console.print(line, soft_wrap=True)


def _own_cells(record: RunRecord, knn: bool) -> list[str]:
    if knn:
        return [str(record.k)]
    return [str(record.seed), f"{record.lr:g}", f"{record.weight_decay:g}", str(record.epochs_run)]


def _remarks(records: Sequence[RunRecord]) -> list[str]:
    lines = []
    for source, meaning in (
        ("unofficial", "a file that is not the official one"),
        ("phantom", "synthetic data: it says nothing of the real dataset"),
    ):
        named = sorted({r.dataset for r in records if r.data_source == source})
        if named:
            lines.append(f"Note: {', '.join(named)} is {meaning}.")
    for record in records:
        for split in ("val", "test"):
            missing = record.metrics[split].get("missing_classes")
            if missing:
                lines.append(
                    f"Note: {record.dataset}'s {split} split lacks positives or negatives of class "
                    f"{', '.join(str(c) for c in missing)}, so its AUC is undefined."
                )
    folders = sorted({str(Path(r.path).parents[4]) for r in records})
    lines.append(f"Records: {', '.join(folders)}")
    return list(dict.fromkeys(lines))


def percent(value: float | None) -> str:
    """Return a fraction in percent with two decimals, or a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.2f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"
