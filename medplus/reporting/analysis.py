"""Everything that a report says, computed once; tables, figures and page only show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from medplus.reporting.cells import Note
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer


@dataclass(frozen=True)
class Analysis:
    """What is known about a benchmark.

    Attributes
    ----------
    title : str
    baseline : bool
        Whether the numbers are the paper's own.
    source : str
        Where the numbers come from, in one line.
    created : str
        ISO 8601, UTC.
    cells : pandas.DataFrame
        The benchmark; see `medplus.reporting.cells`.
    benchmark, ranking, settings, gains, means, percentiles, pairwise, comparisons : DataFrame
        As the functions of `medplus.reporting.statistics` return them.
    friedman : Friedman or None
    intervals : pandas.DataFrame
        Columns over, dataset, protocol, backbone, size, mean, low, high, n; `over` says which of
        the three uncertainties an interval tells of.
    transfers : tuple of Transfer
        How well cheap protocols predict expensive ones.
    costs : pandas.DataFrame
        ACC and device seconds per protocol, backbone and size; empty where nothing was measured.
    paired : pandas.DataFrame
        The best backbone against the second best, on the same test images.
    against, newcomers : pandas.DataFrame or None
        Runs beside the paper's, and the ranks that new backbones would take; None if not asked.
    unlike : pandas.DataFrame
        Cells that stand in no other table, since they were made under other conditions.
    conditions : mapping of str to str
        Per protocol, the conditions of the runs in the tables.
    datasets : pandas.DataFrame
        Columns dataset, data, licence, citation: whose data the numbers were made on.
    skipped : tuple of (str, str)
        Records that could not be read, and why.
    notes : tuple of Note
    findings : tuple of str
        Sentences computed from the data.
    """

    title: str
    baseline: bool
    source: str
    created: str
    cells: pd.DataFrame
    benchmark: pd.DataFrame
    ranking: pd.DataFrame
    settings: pd.DataFrame
    gains: pd.DataFrame
    means: pd.DataFrame
    percentiles: pd.DataFrame
    pairwise: pd.DataFrame
    comparisons: pd.DataFrame
    friedman: Friedman | None
    intervals: pd.DataFrame
    transfers: tuple[Transfer, ...]
    costs: pd.DataFrame
    paired: pd.DataFrame
    against: pd.DataFrame | None
    newcomers: pd.DataFrame | None
    unlike: pd.DataFrame
    conditions: Mapping[str, str]
    datasets: pd.DataFrame
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[Note, ...]
    findings: tuple[str, ...]
