"""What analyses read: results that may be compared, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Results, like with like.

    Attributes
    ----------
    title : str
    source : str
        Where the numbers come from, in one line.
    created : str
        ISO 8601, UTC.
    cells : pandas.DataFrame
        One row per dataset, protocol, backbone and size; see `medplus.analysis.results.cells`.
    runs : pandas.DataFrame or None
        The runs that the cells were made of, one row each; see
        `medplus.analysis.results.runs.RUN_COLUMNS`. Their folders stand in the column ``run``.
        None for published numbers.
    conditions : mapping of str to str
        Per protocol, what all its cells have in common.
    baseline : bool
        Whether the numbers are published ones, of which nothing else is known.
    unlike : pandas.DataFrame
        Cells that take no part, since they were made under other conditions.
    skipped : tuple of (str, str)
        Records that could not be read, and why.
    """

    title: str
    source: str
    created: str
    cells: pd.DataFrame
    runs: pd.DataFrame | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    baseline: bool = False
    unlike: pd.DataFrame = field(default_factory=pd.DataFrame)
    skipped: tuple[tuple[str, str], ...] = ()
