"""Results as tables for a person to read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from medplus.embeddings.extract import Extraction
    from medplus.runs.record import RunRecord

_PIPE_WIDTH = 140


def make_console() -> Console:
    """Return a console for stdout; in a pipe it is wide, so that no cell is cut."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(width=_PIPE_WIDTH)
    return console


def make_table(*columns: str, right: Sequence[str] = (), **settings: Any) -> Table:
    """Return an empty table; columns named in `right` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, **settings)
    for name in columns:
        justify = "right" if name in right else "left"
        # Identifiers are worth more whole on two lines than cut.
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def print_extractions(extractions: Sequence[Extraction]) -> None:
    """Print what was extracted, and where it lies."""
    numbers = ("size", "dim", "images", "chunks", "img/s")
    table = make_table(
        "dataset", "size", "backbone", "dim", "images", "status", "chunks", "img/s", "store",
        right=numbers,
    )  # fmt: skip
    for extraction in extractions:
        info = extraction.store.info
        rate = extraction.images_per_second
        chunks = extraction.chunks_computed + extraction.chunks_reused
        table.add_row(
            info.dataset,
            str(info.size),
            info.backbone,
            str(info.dim),
            str(sum(info.n_samples.values())),
            extraction.status,
            f"{extraction.chunks_computed} of {chunks} computed",
            "" if rate is None else f"{rate:.0f}",
            str(extraction.store.path),
        )
    make_console().print(table)


def print_records(records: Sequence[RunRecord]) -> None:
    """Print the scores of runs, one row each; accuracies and AUC in percent."""
    knn = all(record.protocol == "knn" for record in records)
    own = ("k",) if knn else ("seed", "lr", "wd", "epochs")
    # A choice is worth marking only where there was one.
    choices = len(records) > len({(r.store["key"], r.seed) for r in records})
    table = make_table(
        "dataset", "size", "backbone", *own, "val ACC", "test ACC", "95 % CI", "test AUC",
        "bal. ACC", "ECE",
        right=("size", *own, "val ACC", "test ACC", "test AUC", "bal. ACC", "ECE"),
    )  # fmt: skip
    for record in records:
        val, test = record.metrics["val"], record.metrics["test"]
        star = " ★" if choices and record.selected else ""
        table.add_row(
            record.dataset,
            str(record.size),
            record.backbone,
            *_own_cells(record, knn),
            percent(val["acc"]) + star,
            percent(test["acc"]),
            _interval(test.get("acc_ci95")),
            percent(test["auc"]),
            percent(test["balanced_accuracy"]),
            f"{test['ece']:.3f}" if test.get("ece") is not None else "–",
        )
    console = make_console()
    console.print(table)
    for line in _remarks(records):
        console.print(line, highlight=False, markup=False)


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
        missing = record.metrics["test"].get("missing_classes")
        if missing:
            lines.append(
                f"Note: {record.dataset}'s test split lacks positives or negatives for class "
                f"{', '.join(str(c) for c in missing)}, so its AUC is undefined."
            )
    folders = sorted({str(r.path).rsplit("/", 5)[0] for r in records})
    lines.append(f"Records: {', '.join(folders)}")
    return list(dict.fromkeys(lines))


def percent(value: float | None) -> str:
    """Return a fraction in percent with two decimals, or a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.2f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"
