"""From a column of a table to groups of test images: as it stands, by decade, or by quantiles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medplus.analysis.panel.samples import Columns, column
from medplus.errors import UsageError

NOT_GIVEN = "not given"
_WAYS = re.compile(r"decade|q[2-9]|q10")


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups of the test images.

    Attributes
    ----------
    by : str
        What was asked for, such as ``age:decade``.
    members : mapping of str to ndarray of int64
        Rows of each group; in the order of the numbers, or of the alphabet.
    """

    by: str
    members: Mapping[str, NDArray[np.int64]]


def group_images(columns: Columns, by: str) -> Grouping:
    """Group the test images by a column.

    Parameters
    ----------
    columns : mapping of str to sequence of str
        As `test_columns` gives them.
    by : str
        A column; of numbers also ``COLUMN:decade``, or ``COLUMN:q4`` for quarters of equal size
        (``q2`` to ``q10``).

    Raises
    ------
    UsageError
        If there is no such column, or it does not hold numbers where they are needed.

    Examples
    --------
    >>> found = group_images({"age": ["61", "38", "69", ""]}, "age:decade")
    >>> {name: rows.tolist() for name, rows in found.members.items()}
    {'30–39': [1], '60–69': [0, 2], 'not given': [3]}
    """
    name, _, way = (by, "", "") if by in columns else by.partition(":")
    words = column(columns, name)
    if not way:
        labels, order = list(words), sorted({word for word in words if word}, key=_natural)
    elif _WAYS.fullmatch(way):
        labels, order = _by_number(_numbers(words, by), way)
    else:
        raise UsageError(
            f"--by {by}: unknown '{way}'; use {name}:decade, or {name}:q4 for quarters"
        )
    array = np.array(labels, dtype=object)
    members = {label: np.flatnonzero(array == label) for label in order}
    if (missing := np.flatnonzero(array == "")).size:
        members[NOT_GIVEN] = missing
    return Grouping(by, members)


def _natural(word: str) -> tuple[float, str]:
    """Order numbers by value, and before all else."""
    try:
        return float(word), word
    except ValueError:
        return float("inf"), word


def _numbers(words: Sequence[str], by: str) -> NDArray[np.float64]:
    values = np.full(len(words), np.nan)
    for row, word in enumerate(words):
        try:
            values[row] = float(word) if word else np.nan
        except ValueError:
            raise UsageError(
                f"--by {by}: the column holds '{word}', which is no number; leave "
                f":{by.rpartition(':')[2]} out"
            ) from None
    return values


def _by_number(values: NDArray[np.float64], way: str) -> tuple[list[str], list[str]]:
    """Return every value's group, and all groups in order."""
    known = np.isfinite(values)
    if way == "decade":
        starts = np.floor(values[known] / 10).astype(int) * 10
        bins, names = starts, {start: f"{start}–{start + 9}" for start in np.unique(starts)}
    else:
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, int(way[1:]) + 1)))
        bins = np.searchsorted(edges[1:-1], values[known], side="left")
        names = {
            i: f"{values[known][bins == i].min():g}–{values[known][bins == i].max():g}"
            for i in np.unique(bins)
        }
    labels = np.full(len(values), "", dtype=object)
    labels[known] = [names[one] for one in bins]
    return labels.tolist(), list(names.values())
