"""A table of the report: one model for files and page, and how its values are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from medplus.analysis import format as fmt
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.format import MISSING
from medplus.analysis.results.cells import order_backbones
from medplus.datasets.columns import csv_text

Kind = Literal[
    "text", "runs", "backbone", "protocol", "flag", "size", "percent", "difference", "count",
    "exact", "p", "seconds",
]  # fmt: skip
"""What a column of a file holds, which decides how it is written."""

_WORDS = ("text", "runs", "backbone", "protocol", "flag")

_KINDS: Mapping[Kind, str] = {
    "backbone": "backbone backbone_a backbone_b favoured best second",
    "protocol": "protocol cheap_protocol target_protocol",
    "size": "size cheap_size target_size",
    "percent": "acc acc_mean acc_std auc_mean auc_std p25 p50 p75 mean low high regret "
    "random_regret paper_acc paper_std tolerance val_acc test_acc",
    "difference": "mean_difference acc_difference difference",
    "runs": "runs",
    "count": "n n_seeds n_settings n_datasets n_backbones n_resamples n_images rank rank_low "
    "rank_high count of from_size to_size improved",
    "exact": "effect_size mean_rank statistic critical_difference rho cheap_rank target_rank",
    "p": "p_value threshold p_holm",
    "seconds": "device_seconds",
    "flag": "significant significant_holm front within_spread within_interval passed",
}
_KIND_OF = {one: kind for kind, names in _KINDS.items() for one in names.split()}
"""What columns hold by their name, in every table; all others hold text."""

_TITLES = {
    "acc": "ACC",
    "acc_mean": "Mean ACC",
    "acc_difference": "Difference",
    "auc": "AUC",
    "auc_without": "AUC without",
    "backbone_a": "Backbone",
    "backbone_b": "Against",
    "device_seconds": "Device seconds",
    "favoured": "Higher mean",
    "ci95": "95 % interval",
    "high": "95 % to",
    "low": "95 % from",
    "paper_acc": "Theirs",
    "paper_std": "Their spread",
    "p25": "25th",
    "p50": "50th (median)",
    "p75": "75th",
    "p_holm": "p (Holm)",
    "p_value": "p",
    "rho": "ρ",
    "significant_holm": "Significant (Holm)",
    "size": "Size (px)",
    "test_acc": "Test ACC",
    "val_acc": "Val ACC",
}
"""Columns as readers see them; all others by their name."""

Mark = Literal["", "best", "second", "yes", "no"]


@dataclass(frozen=True)
class Cell:
    """What readers see in one place of a table.

    Attributes
    ----------
    text : str
    mark : str
        ``best`` and ``second`` of a group; ``yes`` and ``no`` where a test was passed or not.
    runs : tuple of str
        The runs that the text names.
    """

    text: str
    mark: Mark = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    title : str
    numeric : bool
    group : str
        The heading that it shares with its neighbours.
    """

    title: str
    numeric: bool = False
    group: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under a caption; the first cell of a row is the row's heading.

    Attributes
    ----------
    caption : str
    columns : sequence of Column
    rows : sequence of sequence of Cell
    grouped : bool
        Whether rows belong together that are equal in the first column.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    grouped: bool = False

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper row of headings with the columns that each spans; empty if there is none."""
        names = [column.group for column in self.columns]
        return [(name, len(list(of_it))) for name, of_it in groupby(names)] if any(names) else []


def list_block(
    caption: str,
    frame: pd.DataFrame,
    kinds: Mapping[str, Kind],
    titles: Mapping[str, str] = MappingProxyType({}),
) -> Block:
    """Return a block with a row for each row of a frame, and the columns that have a kind."""
    columns = [
        Column(titles.get(name) or _title(name), kind not in _WORDS) for name, kind in kinds.items()
    ]
    shown = [[_shown(value, kind) for value in frame[name]] for name, kind in kinds.items()]
    return Block(caption, columns, list(zip(*shown, strict=True)))


def _title(name: str) -> str:
    return _TITLES.get(name) or name.removeprefix("n_").replace("_", " ").capitalize()


def cross_block(
    caption: str,
    heads: str,
    columns: Mapping[Any, Column],
    cells: Mapping[tuple[tuple[Any, ...], Any], str | Cell],
    grouped: bool = False,
) -> Block:
    """Return a block of rows × columns, with a dash where there is no cell.

    Parameters
    ----------
    caption, heads : str
        The latter: the columns of a file that name the rows, with spaces between them.
    columns : mapping of key to Column
    cells : mapping of (row, column's key) to str or Cell
        A row is the values of `heads`; rows stand in the order of their first cells.
    grouped : bool
    """
    names = heads.split()
    write = [_FOR_READERS[_KIND_OF.get(name, "text")] for name in names]
    body = [
        [Cell(text(value)) for text, value in zip(write, row, strict=True)]
        + [as_cell(cells.get((row, column), MISSING)) for column in columns]
        for row in dict.fromkeys(row for row, _ in cells)
    ]
    titles = [Column(_title(name), _KIND_OF.get(name, "text") not in _WORDS) for name in names]
    return Block(caption, [*titles, *columns.values()], body, grouped)


def dataset_block(caption: str, frame: pd.DataFrame, texts: Iterable[str]) -> Block:
    """Return a block of datasets × backbones; a text for each row of a frame with the two."""
    columns = {one: Column(label_of(one), True) for one in order_backbones(frame["backbone"])}
    rows = zip(frame["dataset"], frame["backbone"], texts, strict=True)
    cells = {((dataset,), backbone): text for dataset, backbone, text in rows}
    return cross_block(caption, "dataset", columns, cells)


def as_cell(shown: str | Cell) -> Cell:
    """Return a text as a cell."""
    return shown if isinstance(shown, Cell) else Cell(shown)


@dataclass(frozen=True)
class Table:
    """A table in files and on the page.

    Attributes
    ----------
    name : str
        Its file's name without the ending.
    frame : pandas.DataFrame
        What is written as CSV, all columns in their order.
    kinds : mapping of str to Kind
        What the columns hold.
    blocks : sequence of Block
        What readers see.
    """

    name: str
    frame: pd.DataFrame
    kinds: Mapping[str, Kind]
    blocks: Sequence[Block] = field(repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        caption: str,
        frame: pd.DataFrame,
        columns: str,
        *,
        kinds: Mapping[str, Kind] | None = None,
        hidden: str = "",
        titles: Mapping[str, str] = MappingProxyType({}),
        blocks: Sequence[Block] | None = None,
    ) -> Table:
        """Return a table of a frame.

        Parameters
        ----------
        name, caption : str
        frame : pandas.DataFrame
        columns : str
            The columns of its CSV file, with spaces between them.
        kinds : mapping of str to Kind, optional
            Of columns that this package has no name for, or another meaning.
        hidden : str
            Columns that readers do not see.
        titles : mapping of str to str
            What columns are called for readers, where not as everywhere.
        blocks : sequence of Block, optional
            What they see instead of a row for each row of the frame.
        """
        known = {**_KIND_OF, **(kinds or {})}
        holds = {column: known.get(column, "text") for column in columns.split()}
        written = frame.reindex(columns=list(holds))
        if blocks is None:
            seen = {one: kind for one, kind in holds.items() if one not in hidden.split()}
            blocks = [list_block(caption, written, seen, titles)]
        return cls(name, written, holds, blocks)

    def csv(self) -> str:
        """Return the table as CSV: percent with two decimals, all other numbers in full."""
        columns = [
            [_FOR_MACHINES[self.kinds[name]](value) if _given(value) else "" for value in values]
            for name, values in self.frame.items()
        ]
        return csv_text([self.frame.columns, *zip(*columns, strict=True)])


def _shown(value: Any, kind: Kind) -> Cell:
    """Return what readers see of a value."""
    if not _given(value):
        return Cell("" if kind in _WORDS else MISSING)
    if kind == "flag":
        return Cell("yes", "yes") if value else Cell("no", "no")
    return Cell(_FOR_READERS[kind](value), runs=value if kind == "runs" else ())


def _given(value: Any) -> bool:
    """Tell whether there is a value at all: None, NaN and pandas' NA are none."""
    missing = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    return not missing


def _text(value: Any) -> str:
    """Return names as they are, and of several, say run folders, one after the other."""
    return "; ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _size(value: Any) -> str:
    """Return a size as a whole number, which pandas may hold as a float, or ``all``."""
    return str(int(value)) if isinstance(value, float) else str(value)


_FOR_MACHINES: dict[Kind, Callable[[Any], str]] = {
    "text": _text,
    "runs": _text,
    "backbone": str,
    "protocol": _text,
    "size": _size,
    "percent": fmt.percent,
    "difference": fmt.percent,
    "count": lambda value: str(int(value)),
    "exact": fmt.exact,
    "p": fmt.exact,
    "seconds": fmt.exact,
    "flag": lambda value: str(bool(value)).lower(),
}

_FOR_READERS: dict[Kind, Callable[[Any], str]] = {
    **_FOR_MACHINES,
    "backbone": label_of,
    "protocol": lambda value: PROTOCOL_LABELS.get(value, str(value)),
    "runs": lambda value: "; ".join(Path(run).name for run in value),
    "percent": fmt.read_percent,
    "difference": fmt.difference,
    "exact": fmt.read_percent,
    "p": fmt.p_value,
    "seconds": fmt.seconds,
}
