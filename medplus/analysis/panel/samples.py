"""What a table says of the test images of a run: from the dataset's own table, or another."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus.datasets import sources as datasets
from medplus.datasets.columns import read_columns
from medplus.datasets.files import split_of
from medplus.datasets.imagefolder import read_folder
from medplus.errors import UsageError, nearest
from medplus.run.record import RunRecord

_NAMES = ("path", "name", "file", "filename", "image")
_INDEX, _SPLIT = "index", "split"

Columns = Mapping[str, Sequence[str]]
"""Per column, the text for every test image; empty where the table has none."""


def test_columns(
    record: RunRecord, predictions: Mapping[str, NDArray[Any]], table: Path | None = None
) -> Columns:
    """Return what a table says of the test images, in their order.

    Parameters
    ----------
    record : RunRecord
    predictions : mapping of str to ndarray
        Of the run.
    table : Path, optional
        CSV or parquet file with a column ``path`` (or ``name``, ``file``, ``filename``, ``image``)
        that names the images as their folder does, or by the name of the file alone where that is
        clear; or a column ``index``, their place in the test split, with ``split`` where it also
        has others. By default the table of the dataset's folder.

    Raises
    ------
    UsageError
        If there is no table, or none of its rows is of a test image.
    """
    path = own_table(record) if table is None else table
    columns = read_columns(path).columns
    key = next((name for name in _NAMES if name in columns), None)
    names = predictions.get("test_name")
    if key is not None and names is not None:
        rows = _rows_by_name(columns[key], names.tolist())
    elif _INDEX in columns:
        index = predictions["test_index"]
        origin = predictions.get("test_split", np.repeat("test", len(index)))
        places = zip(origin.tolist(), index.tolist(), strict=True)
        rows = _rows_by_index(path, columns, list(places))
    else:
        needs = "the images have no names, so that it needs" if names is None else "it needs"
        raise UsageError(
            f"{path} names no images: {needs} a column "
            f"{'path or ' if names is not None else ''}index (it has {', '.join(columns)})"
        )
    if all(row is None for row in rows):
        raise UsageError(
            f"{path}: none of its {len(columns[key or _INDEX])} rows is of a test image of "
            f"{record.dataset}; its column '{key or _INDEX}' must name them as the run does"
        )
    return {
        name: ["" if row is None else values[row] for row in rows]
        for name, values in columns.items()
    }


def own_table(record: RunRecord) -> Path:
    """Return the path of the table in the dataset's folder.

    Raises
    ------
    UsageError
        If the dataset is no folder with one, or is gone.
    """
    remedy = "name one with --table FILE.csv"
    ref = datasets.find(record.spec.dataset)
    if ref is None or not Path(ref.spelling).is_dir():
        raise UsageError(f"{record.dataset} has no table of its own here; {remedy}")
    found = read_folder(Path(ref.spelling)).table
    if found is None:
        raise UsageError(f"the folder of {record.dataset}, {ref.spelling}, has no table; {remedy}")
    return found


def column(columns: Columns, name: str) -> Sequence[str]:
    """Return a column.

    Raises
    ------
    UsageError
        If there is none of that name; names the nearest.
    """
    if name not in columns:
        raise UsageError(
            f"--by {name}: the table has no such column (it has {', '.join(columns)})"
            f"{nearest(name, columns)}"
        )
    return columns[name]


def _rows_by_name(words: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Return the row of every name: by its path, or else by the name of its file."""
    paths = [posixpath.normpath(word.replace("\\", "/")) for word in words]
    files = [posixpath.basename(path) for path in paths]
    for known, wanted in ((paths, names), (files, [posixpath.basename(name) for name in names])):
        place: dict[str, int | None] = {}
        for row, path in enumerate(known):
            place[path] = None if path in place else row
        rows = [place.get(name) for name in wanted]
        if len(set(wanted)) == len(wanted) and any(row is not None for row in rows):
            return rows
    return [None] * len(names)


def _rows_by_index(
    path: Path, columns: Mapping[str, Sequence[str]], wanted: Sequence[tuple[str, int]]
) -> list[int | None]:
    """Return the row of every image, which is known by its split and its place in it."""
    place: dict[tuple[str, int], int] = {}
    origins = {split for split, _ in wanted}
    splits = columns.get(_SPLIT)
    for row, word in enumerate(columns[_INDEX]):
        split = "test" if splits is None else str(split_of(splits[row]))
        if split not in origins:
            continue
        if not word.isdecimal() or (split, int(word)) in place:
            raise UsageError(
                f"{path}, line {row + 2}: the index '{word}' must be a whole number that no other "
                "test image has; a table of several splits needs a column 'split'"
            )
        place[split, int(word)] = row
    return [place.get(image) for image in wanted]
