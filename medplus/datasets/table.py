"""The table of a folder: a CSV or parquet file of path, split, label(s) and group."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import Any

from medplus.datasets.card import Card
from medplus.datasets.description import Description
from medplus.datasets.files import File, Sample, split_of
from medplus.datasets.groups import Groups, find_groups
from medplus.datasets.wording import count, quoted, some
from medplus.errors import UsageError, first_line, nearest
from medplus.vocabulary import Split

_DEFAULT_TABLES = ("labels.csv", "labels.parquet")
_PATH, _LABEL = "path", "label"
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


def read_table(
    root: Path, path: Path, description: Description, files: list[File], card: Card
) -> tuple[list[Sample], tuple[str, ...], Groups]:
    """Read a table and match its rows to the files.

    Returns the samples, sorted by path; the names of the 0/1 columns, none for a class column; and
    the groups.

    Raises
    ------
    UsageError
        If the table cannot be read, lacks a column or a value, leaves open what the labels are, or
        names a file twice or one that is not there.
    """
    columns = read_columns(path)
    if _PATH not in columns:
        near = nearest(_PATH, columns)
        raise UsageError(f"{path} has no column 'path' (it has {some(columns)}){near}")
    paths = _matched(root, path, columns[_PATH], files, card)
    split_column = _split_column(path, columns)
    groups = find_groups(root, path, paths, columns, description)
    taken = {_PATH, split_column, groups.column}
    label_columns = description.label_columns or _label_columns(path, columns, taken)
    labels, names = _labels(path, columns, label_columns, description, card)
    splits = _splits(path, columns, split_column)
    if split_column and splits[0]:
        card.split_from = f"column '{split_column}'"
    card.unused_columns = [c for c in columns if c not in {*taken, *label_columns}]
    samples = [Sample(*row) for row in zip(paths, splits, labels, groups.values, strict=True)]
    return sorted(samples, key=lambda sample: sample.path), names, groups


def read_columns(path: Path) -> dict[str, list[str]]:
    """Return every column as text; missing values are empty."""
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ImportError:
        raise UsageError(
            f"{path} cannot be read without pyarrow: pip install 'medplus[parquet]'"
        ) from None
    except Exception as error:  # parsers fail in many ways
        raise UsageError(f"{path} is no table that can be read: {first_line(error)}") from None
    if frame.empty:
        raise UsageError(f"{path} has no rows")
    if _PATH not in frame and len(frame.columns) == 1 and ";" in str(frame.columns[0]):
        raise UsageError(f"{path} is separated by semicolons; separate its columns by commas")
    return {str(name).strip(): [_word(value) for value in frame[name]] for name in frame.columns}


def _word(value: Any) -> str:
    if value is None or str(value) in ("nan", "NaT", "<NA>"):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers that had a gap
    return str(value).strip()


def _full(path: Path, columns: dict[str, list[str]], name: str) -> list[str]:
    if name not in columns:
        raise UsageError(
            f"{path} has no column '{name}' (it has {some(columns)}){nearest(name, columns)}"
        )
    gaps = [row for row, value in enumerate(columns[name], start=2) if not value]
    if gaps:
        lines = ", ".join(map(str, gaps[:3]))
        raise UsageError(f"{path}: {count(len(gaps), 'row')} without {name} (rows {lines}); fill in"
                         " every row, or drop it")  # fmt: skip
    return columns[name]


def _matched(root: Path, table: Path, words: list[str], files: list[File], card: Card) -> list[str]:
    """Return the rows' paths as the files have them."""
    paths = [_relative(root, word) for word in words]
    known = {file.path for file in files}
    twice = sorted(path for path, n in Counter(paths).items() if n > 1)
    if twice:
        raise UsageError(
            f"{table}: {count(len(twice), 'path')} {some(twice)} on several rows; keep one of each"
        )
    missing = [word for word, path in zip(words, paths, strict=True) if path not in known]
    if missing:
        raise UsageError(
            f"{table}: {count(len(missing), 'row')} of {len(words):,} without an image under "
            f"{root} {some(missing)}; put the files there, or drop the rows"
        )
    unnamed = sorted(known - set(paths))
    if unnamed:
        card.warn(
            f"left out, since no row of {table.name} names them: {count(len(unnamed), 'image')} "
            f"{some(unnamed)}"
        )
    return paths


def _relative(root: Path, word: str) -> str:
    word = word.replace("\\", "/")
    if word.startswith("/"):
        word = os.path.relpath(word, root.absolute())
    return posixpath.normpath(word)


def _split_column(path: Path, columns: dict[str, list[str]]) -> str | None:
    """Return the column of splits, if there is one with a word in it."""
    found = []
    for name, words in columns.items():
        plain = re.sub(r"[\s-]+", "_", name.casefold())
        maybe = plain in _MAYBE_SPLIT_COLUMNS and any(split_of(word) for word in words)
        if any(words) and (plain in _SPLIT_COLUMNS or maybe):
            found.append(name)
    if len(found) > 1:
        raise UsageError(f"{path} has several columns of splits {some(found)}; keep one of them")
    return found[0] if found else None


def _splits(path: Path, columns: dict[str, list[str]], name: str | None) -> list[Split | None]:
    if name is None:
        return [None] * len(columns[_PATH])
    words = _full(path, columns, name)
    unknown = sorted({word for word in words if split_of(word) is None})
    if unknown:
        raise UsageError(
            f"{path}: unknown split '{quoted(unknown[0])}' in the column '{name}'; use train, val "
            "or test"
        )
    return [split_of(word) for word in words]


def _labels(
    path: Path,
    columns: dict[str, list[str]],
    names: tuple[str, ...],
    description: Description,
    card: Card,
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return each row's labels, and the names of the 0/1 columns if several labels may hold."""
    several = len(names) > 1 or (description.task or "").startswith("multi-label")
    values = [_full(path, columns, name) for name in names]
    if not several:
        card.task_from = f"column '{quoted(names[0])}'"
        parts = [[p.strip() for p in _SEVERAL.split(word) if p.strip()] for word in values[0]]
        found = {p for row in parts for p in row}
        if description.task or all(len(row) == 1 for row in parts) or not _recur(parts):
            return [(word,) for word in values[0]], ()
        card.task_from += ", several labels in a cell"
        tokens = tuple(sorted(found))
        return [tuple("01"[token in row] for token in tokens) for row in parts], tokens
    if len(names) == 1 and any(_SEVERAL.search(word) for word in values[0]):
        return _labels(path, columns, names, description.model_copy(update={"task": None}), card)
    for name, column in zip(names, values, strict=True):
        odd = [value for value in column if value.lower() not in _FLAGS]
        if odd:
            raise UsageError(
                f"{path}: column '{name}' holds '{odd[0]}', but several label columns must "
                "hold 0 and 1 only"
            )
    rows = list(zip(*([_FLAGS[value.lower()] for value in c] for c in values), strict=True))
    card.task_from = f"columns of 0 and 1 {some(names)}"
    if description.task is None and len(names) > 1 and all(row.count("1") == 1 for row in rows):
        card.task_from += ", exactly one of them 1 in every row"
        return [(names[row.index("1")],) for row in rows], ()
    return rows, names


def _recur(parts: list[list[str]]) -> bool:
    """Tell whether what stands together in cells also stands apart: labels, no odd names."""
    together = {token for row in parts if len(row) > 1 for token in row}
    apart = {row[0] for row in parts if len(row) == 1}
    return bool(together & apart)


def _label_columns(
    path: Path, columns: dict[str, list[str]], taken: set[str | None]
) -> tuple[str, ...]:
    """Return ``label``, or else what alone can be meant: never guessed where there is a choice."""
    if _LABEL in columns:
        return (_LABEL,)
    left = {name: values for name, values in columns.items() if name not in taken}
    flags = tuple(
        name for name, values in left.items() if all(value.lower() in _FLAGS for value in values)
    )
    if len(left) == 1 or (flags and len(flags) == len(left)):
        return tuple(left)
    ask = "name the one of the classes, or all of 0 and 1, as label_columns in dataset.yaml"
    if not left:
        raise UsageError(f"{path} has no column of labels (it has {some(columns)}); {ask}")
    raise UsageError(
        f"{path} has no column 'label', and which of its columns are labels is not clear "
        f"{some(left)}; {ask}"
    )
