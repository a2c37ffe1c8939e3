"""The table of a folder: its rows are matched to the files, and its columns told apart."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from medplus.datasets.card import Card
from medplus.datasets.columns import PATH, Table, refuse_twins
from medplus.datasets.description import Description
from medplus.datasets.files import Sample, split_of
from medplus.datasets.groups import Groups, find_groups
from medplus.datasets.splitfile import SPLITS_FILE
from medplus.errors import UsageError
from medplus.naming import counted, quoted, several, some
from medplus.vocabulary import Split

_DEFAULT_TABLES = ("labels.csv", "labels.parquet")
_TABLES = {".csv", ".tsv", ".parquet", ".xlsx", ".xls", ".ods"}
_OURS = {SPLITS_FILE, "suspects.csv"}
_LABEL = "label"
_SPLIT_COLUMNS = {"split", "splits", "subset", "partition", "train_val_test", "train_test_split"}
_MAYBE_SPLIT_COLUMNS = {"set", "phase", "usage", "fold", "dataset", "group", "mode"}
_SEVERAL = re.compile(r"[|;]")
_FLAGS = {"0": "0", "1": "1", "0.0": "0", "1.0": "1", "false": "0", "true": "1"}


def table_path(root: Path, description: Description) -> Path | None:
    """Return the path of a folder's table, if it has one.

    Raises
    ------
    UsageError
        If `dataset.yaml` names one that is not there.
    """
    if description.table is not None:
        path = root / description.table
        if not path.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"{path}, which dataset.yaml names as the table, lies outside {root}; "
                             "put it into the folder")  # fmt: skip
        if not path.is_file():
            raise UsageError(f"{path} does not exist, but dataset.yaml names it as the table")
        return path
    found = [root / name for name in _DEFAULT_TABLES if (root / name).is_file()]
    if len(found) > 1:
        raise UsageError(f"{root} has labels.csv and labels.parquet; name one as 'table' in "
                         "dataset.yaml")  # fmt: skip
    return found[0] if found else None


def unread_tables(root: Path) -> list[str]:
    """Return a warning of tables in the folder where none is read: they may hold the classes."""
    names = sorted(
        path.name
        for path in root.iterdir()
        if path.suffix.lower() in _TABLES and path.name not in _OURS and path.name[0] not in ".~"
    )
    if not names:
        return []
    return [
        f"not read: {several(names, 'table')} in the folder, whose classes are the names of "
        "folders; if one holds classes, call it labels.csv, or name it as 'table' in dataset.yaml"
    ]


def match_table(
    root: Path, table: Table, description: Description, there: set[str], card: Card
) -> tuple[list[Sample], tuple[str, ...], Groups]:
    """Match a table's rows to the images that are there, by their paths.

    Returns the samples, sorted by path; the names of the 0/1 columns, none for a class column; and
    the groups.

    Raises
    ------
    UsageError
        If the table lacks a column or a value, leaves open what the labels are, or
        names a file twice or one that is not there.
    """
    paths = _matched(root, table, there, card)
    split_column, splits = _splits(table)
    if split_column is not None:
        card.split_from = f"column '{split_column}'"
    groups = find_groups(root, table, paths, description)
    taken = {PATH, split_column, groups.column}
    label_columns = description.label_columns or _label_columns(table, taken)
    labels, names = _labels(table, label_columns, description.task, card)
    card.unused_columns = [c for c in table.columns if c not in {*taken, *label_columns}]
    samples = [Sample(*row) for row in zip(paths, splits, labels, groups.values, strict=True)]
    return sorted(samples, key=lambda sample: sample.path), names, groups


def _matched(root: Path, table: Table, there: set[str], card: Card) -> list[str]:
    """Return the rows' paths as the images have them."""
    words = table.full(PATH)
    paths = [relative(root, word) for word in words]
    refuse_twins(table.path, paths, "path")
    missing = [word for word, path in zip(words, paths, strict=True) if path not in there]
    if missing:
        raise UsageError(
            f"{table.path}: {counted(len(missing), 'row')} of {len(words):,} without an image "
            f"under {root} {some(missing)}; put the files there, write paths from that folder "
            "on, or drop the rows"
        )
    unnamed = sorted(there - set(paths))
    if unnamed:
        told = several(unnamed, "image")
        card.warn(f"left out, since no row of {table.path.name} names them: {told}")
    return paths


def relative(root: Path, word: str) -> str:
    """Return a path, as a table has it, relative to the root, with slashes."""
    word = word.replace("\\", "/")
    if word.startswith("/"):
        word = os.path.relpath(word, root.absolute())
    return posixpath.normpath(word)


def _splits(table: Table) -> tuple[str | None, list[Split | None]]:
    """Return the column of splits, if there is one with a word in it, and what it says."""
    found = []
    for name, words in table.columns.items():
        plain = re.sub(r"[\s-]+", "_", name.casefold())
        maybe = plain in _MAYBE_SPLIT_COLUMNS and any(split_of(word) for word in words)
        if any(words) and (plain in _SPLIT_COLUMNS or maybe):
            found.append(name)
    if len(found) > 1:
        told = f"has several columns of splits {some(found)}; keep one of them"
        raise UsageError(f"{table.path} {told}")
    if not found:
        return None, [None] * len(table.full(PATH))
    [name], words = found, table.full(found[0])
    unknown = sorted({word for word in words if split_of(word) is None})
    if unknown:
        told = (
            f"unknown split '{quoted(unknown[0])}' in the column '{name}'; use train, val or test"
        )
        raise UsageError(f"{table.path}: {told}")
    return name, [split_of(word) for word in words]


def _labels(
    table: Table, names: tuple[str, ...], task: str | None, card: Card
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return each row's labels, and the names of the 0/1 columns if several labels may hold."""
    values = [table.full(name) for name in names]
    cells = [[p.strip() for p in _SEVERAL.split(word) if p.strip()] for word in values[0]]
    may_be_several = len(names) > 1 or (task or "").startswith("multi-label")
    if may_be_several and len(names) == 1 and any(_SEVERAL.search(word) for word in values[0]):
        may_be_several, task = False, None
    if not may_be_several:
        card.task_from = f"column '{quoted(names[0])}'"
        if task or not _recur(cells):
            return [(word,) for word in values[0]], ()
        card.task_from += ", several labels in a cell"
        tokens = tuple(sorted({token for row in cells for token in row}))
        return [tuple("01"[token in row] for token in tokens) for row in cells], tokens
    for name, column in zip(names, values, strict=True):
        odd = [value for value in column if value.lower() not in _FLAGS]
        if odd:
            told = f"column '{name}' holds '{odd[0]}', but several label columns must hold 0 and 1"
            raise UsageError(f"{table.path}: {told} only")
    rows = list(zip(*([_FLAGS[value.lower()] for value in c] for c in values), strict=True))
    card.task_from = f"columns of 0 and 1 {some(names)}"
    if task is None and all(row.count("1") == 1 for row in rows):
        card.task_from += ", exactly one of them 1 in every row"
        never = [name for name, *column in zip(names, *rows, strict=True) if "1" not in column]
        if never:
            card.warn(f"no row is of {several(never, 'column')}: no class is made of it")
        return [(names[row.index("1")],) for row in rows], ()
    none = sum("1" not in row for row in rows)
    if none and all(row.count("1") < 2 for row in rows):
        card.warn(
            f"no row has two of the labels, and {none:,} of {len(rows):,} have none; if they are "
            "classes, name each row's in a column label"
        )
    return rows, names


def _recur(cells: list[list[str]]) -> bool:
    """Tell whether what stands together in cells also stands apart: labels, no odd names."""
    together = {token for row in cells if len(row) > 1 for token in row}
    apart = {row[0] for row in cells if len(row) == 1}
    return bool(together & apart)


def _label_columns(table: Table, taken: set[str | None]) -> tuple[str, ...]:
    """Return ``label``, or else what alone can be meant: never guessed where there is a choice."""
    if _LABEL in table.columns:
        return (_LABEL,)
    left = {name: values for name, values in table.columns.items() if name not in taken}
    are_flags = all(value.lower() in _FLAGS for values in left.values() for value in values)
    if len(left) == 1 or (left and are_flags):
        return tuple(left)
    told = (
        f"has no column 'label', and which of its columns are labels is not clear {some(left)}"
        if left
        else f"has no column of labels (it has {some(table.columns)})"
    )
    raise UsageError(
        f"{table.path} {told}; name the one of the classes, or all of 0 and 1, as label_columns in "
        "dataset.yaml"
    )
