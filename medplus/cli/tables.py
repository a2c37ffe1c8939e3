"""Results as tables for a person to read, in whatever width the terminal has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from medplus.cli.output import say
from medplus.naming import printable, quoted
from medplus.progress import new_console
from medplus.spec import PIXELS
from medplus.vocabulary import SPLITS, Split

if TYPE_CHECKING:
    from medplus.analysis.table import Block
    from medplus.analysis.table import Table as ReportTable
    from medplus.embeddings.extract import Extraction
    from medplus.run.record import RunRecord

T = TypeVar("T")
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
    console = new_console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, made to fit the terminal, and say what of it did not fit."""
    console = make_console()
    rows = [[printable(cell, keep="") for cell in row] for row in rows]
    same, kept = fit_columns(columns, rows, console.width)
    if same:
        shared = (f"{columns[i].name} {rows[0][i]}" for i in same)
        console.print(", ".join(shared))
        console.print()
    table = Table(
        box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    needed = _needed(columns, rows)
    fits = _width(needed, kept) <= console.width  # else everything is folded
    for i in kept:
        table.add_column(
            columns[i].name,
            justify="right" if columns[i].right else "left",
            overflow="fold",  # an identifier on two lines is worth more than half of one
            no_wrap=fits and columns[i].least is None,
            min_width=needed[i] if fits else None,
        )
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    console.print(table)
    missing = [columns[i].name for i in range(len(columns)) if i not in {*same, *kept}]
    if missing:
        text = f"({', '.join(missing)}: in a wider terminal, or with --json)"
        console.print(text)


def print_rows(rows: Iterable[T], *fields: tuple[Column, Callable[[T], object]]) -> None:
    """Print a table of which every column says what it shows of a row."""
    shown = [[value(row) for _, value in fields] for row in rows]
    texts = [["" if one is None else str(one) for one in row] for row in shown]
    print_table([column for column, _ in fields], texts)


def print_block(block: Block) -> None:
    """Print a table of a report."""
    columns = [Column(one.title, right=one.numeric) for one in block.columns]
    print_table(columns, [[cell.text for cell in row] for row in block.rows])


def print_tables(tables: Iterable[ReportTable]) -> None:
    """Print all that readers see of a report's tables, each under its caption."""
    for block in (block for table in tables for block in table.blocks):
        say(f"\n{block.caption}")
        print_block(block)


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
    needed = _needed(columns, rows)
    for i in range(len(columns)):
        agrees = len(rows) > 1 and len({row[i] for row in rows}) == 1
        if agrees and _width(needed, kept) > width:
            same.append(i)
            kept.remove(i)
    for i in sorted(kept, key=lambda i: columns[i].rank):
        if columns[i].rank and _width(needed, kept) > width:
            kept.remove(i)
    return same, kept


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return how wide every column must be, in characters."""
    widths = []
    for i, column in enumerate(columns):
        name = cell_len(column.name)
        whole = max([name, *(cell_len(row[i]) for row in rows)])
        widths.append(whole if column.least is None else min(whole, max(name, column.least)))
    return widths


def _width(needed: Sequence[int], kept: Sequence[int]) -> int:
    return sum(needed[i] for i in kept) + _GAP * (len(kept) - 1)


def print_extractions(extractions: Sequence[Extraction]) -> None:
    """Print what was extracted, and where it lies."""
    print_rows(
        extractions,
        (Column("dataset"), lambda done: done.store.info.dataset),
        (Column("size", right=True), lambda done: done.store.info.size),
        (Column("backbone"), lambda done: done.store.info.backbone),
        (Column("dim", right=True, rank=3), lambda done: done.store.info.dim),
        (
            Column("images", right=True, rank=2),
            lambda done: sum(done.store.info.n_samples.values()),
        ),
        (Column("status"), lambda done: done.status),
        (
            Column("chunks computed", right=True, rank=4),
            lambda done: f"{done.chunks_computed} of {done.chunks_computed + done.chunks_reused}",
        ),
        (
            Column("img/s", right=True),
            lambda done: done.images_per_second and f"{done.images_per_second:.0f}",
        ),
        (Column("store", rank=1), lambda done: done.store.path),
    )


def _learns(run: RunRecord) -> str | None:
    """Return how many parameters learned of a network that was adapted, both without the head."""
    if run.lora is None or run.network is None:
        return None
    return f"{run.network.n_trainable / 1e6:.2f} of {run.network.n_parameters / 1e6:.2f} M"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


_Field = tuple[Column, Callable[["RunRecord"], object]]

_OWN: tuple[_Field, ...] = (
    (Column("k", right=True), lambda run: run.k),
    (Column("seed", right=True), lambda run: run.seed),
    (Column("solver"), lambda run: run.solver),
    (Column("strength", right=True), lambda run: _number(run.strength)),
    (Column("lr", right=True), lambda run: _number(run.lr)),
    (Column("wd", right=True), lambda run: _number(run.weight_decay)),
    (Column("LoRA r", right=True), lambda run: run.lora),
    (Column("learns", right=True, rank=3), _learns),
    (Column("epochs", right=True, rank=3), lambda run: run.epochs_run),
)
"""What tells the runs of a protocol apart; a column is shown where any run has a value."""

_AXES: tuple[_Field, ...] = (
    (Column("weights", least=12), lambda run: "" if run.backbone == PIXELS else run.weights),
    (Column("fit"), lambda run: run.spec.fit or ""),
    (Column("feature"), lambda run: (run.store and run.spec.feature) or ""),
)
"""What else is compared; a column is shown where runs differ in it."""

_MANY = 6
"""Of more settings than this for each seed only the one that val chose is shown."""


def print_records(records: Sequence[RunRecord]) -> None:
    """Print the scores of runs, one row each, in percent.

    Of a search over many settings the chosen one is shown, and of how many it was chosen.
    """
    tried = Counter(record.group for record in records)
    searched = max(tried.values(), default=0) > _MANY
    everything, choices = records, len(records) > len(tried)
    if searched:
        records = [record for record in records if record.selected]
    compared = any("baseline_acc" in scores for r in records for scores in r.metrics.values())
    several = len({record.protocol for record in records}) > 1
    # Of the last split, mostly test, everything is told; of those before it the accuracy.
    *before, last = [s for s in SPLITS if any(s in r.metrics for r in records)] or ["test"]

    def scores(run: RunRecord) -> dict[str, Any]:
        return run.metrics.get(last, {})

    def of(name: str, decimals: int = 2) -> Callable[[RunRecord], str]:
        return lambda run: percent(scores(run).get(name), decimals)

    def accuracy(split: Split) -> _Field:
        column = Column(f"{split} ACC", right=True)
        return column, lambda run: _accuracy(run, split, choices)

    print_rows(
        records,
        *([(Column("protocol"), lambda run: run.protocol)] if several else []),
        (Column("dataset"), lambda run: run.dataset),
        (Column("size", right=True), lambda run: run.size),
        (Column("backbone"), lambda run: run.backbone),
        *(one for one in _AXES if len({one[1](record) for record in records} - {""}) > 1),
        *(one for one in _OWN if any(one[1](record) is not None for record in records)),
        *([(Column("chosen of", right=True), lambda run: tried[run.group])] if searched else []),
        *map(accuracy, (*before, last)),
        (Column("95 % interval", rank=4), lambda run: bounds(scores(run).get("acc_ci95"))),
        *([(Column("baseline", right=True, rank=3), of("baseline_acc"))] if compared else []),
        (Column("bal. ACC", right=True, rank=3), of("balanced_accuracy")),
        (Column(f"{last} AUC", right=True), of("auc")),
        (Column("ECE", right=True, rank=1), of("ece", 1)),
    )
    say("", *_remarks(everything))


def _accuracy(record: RunRecord, split: Split, choices: bool) -> str:
    star = "★ " if choices and record.selected and split == "val" else ""
    return star + percent(record.metrics.get(split, {}).get("acc"))


def _remarks(records: Sequence[RunRecord]) -> list[str]:
    lines = _of_folds(records)
    for source, meaning in (
        ("unofficial", "a file that is not the official one"),
        ("phantom", "synthetic data: it says nothing of the real dataset"),
    ):
        named = sorted({r.dataset for r in records if r.data_source == source})
        if named:
            lines.append(f"Note: {', '.join(named)} is {meaning}.")
    for record in records:
        for split, scores in record.metrics.items():
            missing = scores.get("missing_classes")
            if missing:
                lacking = ", ".join(quoted(record.classes[c]) for c in missing)
                lines.append(
                    f"Note: {record.dataset}'s {split} split lacks positives or negatives of "
                    f"{lacking}, so its AUC is undefined."
                )
    lines.append(f"Records: {', '.join(_places(records))}")
    return list(dict.fromkeys(lines))


def _of_folds(records: Sequence[RunRecord]) -> list[str]:
    """Return the means over folds with their corrected intervals, a line each."""
    if not any(record.folds for record in records):
        return []
    from medplus.run.foldmeans import summaries

    lines = []
    for row in summaries(records):
        seed = "" if row["seed"] is None else f", seed {row['seed']}"
        kept = ", groups kept whole" if row["grouped"] else ""
        lines.append(
            f"{row['protocol']} on {row['dataset']} at {row['size']} px with {row['backbone']}"
            f"{seed}: ACC {percent(row['acc']['mean'])} % over {row['repeats']} × {row['folds']} "
            f"folds{kept}, 95 % interval for dependent folds {bounds(row['acc']['ci95'])}."
        )
    return lines


def _places(records: Sequence[RunRecord]) -> list[str]:
    """Return where records lie: the roots of their runs, or a run's folder of evaluations."""
    from medplus.run.ledger import EVALUATIONS

    folders = [Path(record.path) for record in records]
    evaluations = {str(path.parent) for path in folders if path.parent.name == EVALUATIONS}
    roots = {str(path.parents[4]) for path in folders if path.parent.name != EVALUATIONS}
    if len(evaluations) > 1:
        evaluations = {f"{EVALUATIONS} in the folder of each run"}
    return sorted(roots | evaluations)


def percent(value: float | None, decimals: int = 2) -> str:
    """Return a fraction in percent, or a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{decimals}f}"


def bounds(interval: Sequence[float] | None) -> str:
    """Return the ends of an interval of fractions, in percent."""
    return "–" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"
