"""What belongs together: from a table of the user's, or from the folder of images itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from medplus.auditing.pool import Pool
from medplus.datasets.imagefolder import read_content, read_folder
from medplus.errors import MedplusError, UsageError

_WHERE = ("name", "split", "index")
_GROUP = "group"


def groups_from(path: Path, pool: Pool) -> np.ndarray:
    """Read the group of every image from a table, such as MedMNIST's maps to source images.

    The table names images by ``name``, or by ``split`` and ``index``; the group is the column
    ``group``, or the only other one.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    UsageError
        If the table cannot be read, has no such columns, or misses an image.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--groups {path} cannot be read: {error}") from None
    others = [name for name in columns if name not in _WHERE]
    column = _GROUP if _GROUP in columns else others[0] if len(others) == 1 else None
    by_name = "name" in columns
    if column is None or not (by_name or {"split", "index"} <= set(columns)):
        raise UsageError(
            f"--groups {path} has the columns {', '.join(columns) or 'none'}; it needs group, and "
            "name or split and index"
        )
    if by_name:
        told = {row["name"]: row[column] for row in rows}
        keys = [pool.name_of(row) for row in range(len(pool))]
    else:
        told = {f"{row['split']}/{row['index']}": row[column] for row in rows}
        keys = [f"{pool.split_of(row)}/{pool.index[row]}" for row in range(len(pool))]
    missing = [key for key in keys if not told.get(key)]
    if missing:
        raise UsageError(
            f"--groups {path} has no group for {len(missing)} images (the first: {missing[0]})"
        )
    return _numbers([told[key] for key in keys])


def groups_of_folder(pool: Pool) -> np.ndarray | None:
    """Return the groups by which a folder of images was split, or None where there are none."""
    if pool.images is None or not Path(pool.images.path).is_dir():
        return None
    try:
        samples = read_content(read_folder(Path(pool.images.path))).samples
    except MedplusError:
        return None
    told = {sample.path: sample.group for sample in samples}
    groups = [told.get(name) for name in pool.names]
    return _numbers(list(map(str, groups))) if all(groups) else None


def torn(pool: Pool) -> np.ndarray:
    """Tell the test images whose group is also in train, bool, shape (n,)."""
    if pool.groups is None:
        return np.zeros(len(pool), bool)
    return np.asarray((pool.split == 2) & np.isin(pool.groups, pool.groups[pool.split == 0]))


def _numbers(values: list[str]) -> np.ndarray:
    numbers: np.ndarray = np.unique(np.array(values), return_inverse=True)[1]
    return np.asarray(numbers, np.int64)
