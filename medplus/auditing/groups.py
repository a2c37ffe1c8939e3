"""What belongs together, from a table of the user's: stores know it of folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medplus.auditing.pool import Pool, numbered
from medplus.datasets.columns import read_columns
from medplus.errors import UsageError

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
    columns = read_columns(path).columns
    others = [name for name in columns if name not in _WHERE]
    column = _GROUP if _GROUP in columns else others[0] if len(others) == 1 else None
    by_name = "name" in columns
    if column is None or not (by_name or {"split", "index"} <= set(columns)):
        raise UsageError(
            f"--groups {path} has the columns {', '.join(columns)}; it needs group, and "
            "name or split and index"
        )
    if by_name:
        places = columns["name"]
        keys = [pool.name_of(row) for row in range(len(pool))]
    else:
        places = ["/".join(place) for place in zip(columns["split"], columns["index"], strict=True)]
        keys = [f"{pool.split_of(row)}/{pool.index[row]}" for row in range(len(pool))]
    told = dict(zip(places, columns[column], strict=True))
    missing = [key for key in keys if not told.get(key)]
    if missing:
        raise UsageError(
            f"--groups {path} has no group for {len(missing)} images (the first: {missing[0]})"
        )
    return numbered([told[key] for key in keys])
