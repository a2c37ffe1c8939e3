"""Everything that a report says, computed once; tables, figures and page only show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer
from medplus.reporting.verdict import Verdict


@dataclass(frozen=True)
class Note:
    """Something that a reader of a table or figure must know.

    Attributes
    ----------
    where : str
        The part of the report that it belongs to: ``ranking``, ``pairwise``, …
    text : str
        One sentence.
    """

    where: str
    text: str


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
        The benchmark; see `medplus.analysis.results.cells`.
    benchmark, ranking, gains, means, percentiles, pairwise : pandas.DataFrame
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
    left_out : tuple of str
        Backbones that rankings and tests leave out; see `comparable`.
    verdicts : tuple of Verdict
        On every dataset, and over all; none for the paper, whose val scores are not known.
    notes : tuple of Note
    findings : tuple of str
        Sentences computed from the data.
    """

    title: str
    source: str
    created: str
    cells: pd.DataFrame
    benchmark: pd.DataFrame
    ranking: pd.DataFrame
    gains: pd.DataFrame
    means: pd.DataFrame
    percentiles: pd.DataFrame
    pairwise: pd.DataFrame
    friedman: Friedman | None
    intervals: pd.DataFrame
    transfers: tuple[Transfer, ...]
    costs: pd.DataFrame
    datasets: pd.DataFrame
    conditions: Mapping[str, str]
    baseline: bool = False
    paired: pd.DataFrame = field(default_factory=pd.DataFrame)
    against: pd.DataFrame | None = None
    newcomers: pd.DataFrame | None = None
    unlike: pd.DataFrame = field(default_factory=pd.DataFrame)
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[Note, ...] = ()
    findings: tuple[str, ...] = ()
