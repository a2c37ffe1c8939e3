"""The table of a folder: a CSV or parquet file of path, split, label(s) and group."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import Counter
from pathlib import Path
from typing import Any

from medplus.datasets.description import Description
from medplus.datasets.files import SPLIT_NAMES, File, Sample
from medplus.datasets.wording import count, some
from medplus.errors import UsageError, first_line, nearest
from medplus.vocabulary import Split

log = logging.getLogger(__name__)

_DEFAULT_TABLES = ("labels.csv", "labels.parquet")
_PATH, _SPLIT, _LABEL = "path", "split", "label"
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
    root: Path, path: Path, description: Description, files: list[File]
) -> tuple[list[Sample], tuple[str, ...]]:
    """Read a table and match its rows to the files.

    Returns the samples, sorted by path, and the names of the 0/1 columns; none for a class column.

    Raises
    ------
    UsageError
        If the table cannot be read, lacks a column or a value, or names a file twice or one that
        is not there.
    """
    columns = _columns(path)
    if _PATH not in columns:
        near = nearest(_PATH, columns)
        raise UsageError(f"{path} has no column 'path' (it has {some(columns)}){near}")
    paths = _matched(root, path, columns[_PATH], files)
    labels, names = _labels(path, columns, description)
    splits = _splits(path, columns)
    groups: list[str | None] = [None] * len(paths)
    if description.group_column is not None:
        groups = list(_full(path, columns, description.group_column))
    samples = [Sample(*row) for row in zip(paths, splits, labels, groups, strict=True)]
    return sorted(samples, key=lambda sample: sample.path), names


def _columns(path: Path) -> dict[str, list[str]]:
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
    return {str(name): [_word(value) for value in frame[name]] for name in frame.columns}


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


def _matched(root: Path, table: Path, words: list[str], files: list[File]) -> list[str]:
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
        log.warning(
            "%s: left out, since no row of %s names them: %s %s",
            root, table.name, count(len(unnamed), "image"), some(unnamed),
        )  # fmt: skip
    return paths


def _relative(root: Path, word: str) -> str:
    word = word.replace("\\", "/")
    if word.startswith("/"):
        word = os.path.relpath(word, root.absolute())
    return posixpath.normpath(word)


def _splits(path: Path, columns: dict[str, list[str]]) -> list[Split | None]:
    if not any(columns.get(_SPLIT, ())):
        return [None] * len(columns[_PATH])
    words = [word.lower() for word in _full(path, columns, _SPLIT)]
    unknown = sorted(set(words) - set(SPLIT_NAMES))
    if unknown:
        raise UsageError(f"{path}: unknown split '{unknown[0]}'; use train, val or test")
    return [SPLIT_NAMES[word] for word in words]


def _labels(
    path: Path, columns: dict[str, list[str]], description: Description
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return each row's labels, and the names of the 0/1 columns if there are several."""
    names = description.label_columns or _label_columns(path, columns, description)
    several = len(names) > 1 or (description.task or "").startswith("multi-label")
    values = [_full(path, columns, name) for name in names]
    if several:
        for name, column in zip(names, values, strict=True):
            odd = [value for value in column if value.lower() not in _FLAGS]
            if odd:
                raise UsageError(
                    f"{path}: column '{name}' holds '{odd[0]}', but several label columns must "
                    "hold 0 and 1 only"
                )
        values = [[_FLAGS[value.lower()] for value in column] for column in values]
    return list(zip(*values, strict=True)), tuple(names) if several else ()


def _label_columns(
    path: Path, columns: dict[str, list[str]], description: Description
) -> tuple[str, ...]:
    """Return ``label``, or else every column of nothing but 0 and 1."""
    if _LABEL in columns:
        return (_LABEL,)
    taken = {_PATH, _SPLIT, description.group_column}
    found = tuple(
        name
        for name, values in columns.items()
        if name not in taken and all(value.lower() in _FLAGS for value in values)
    )
    if not found:
        raise UsageError(
            f"{path} has neither a column 'label' nor columns of 0 and 1 (it has {some(columns)}); "
            "name its label_columns in dataset.yaml"
        )
    return found
