"""What analyses read: results that may be compared, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from medplus.analysis.results.averages import dataset_means, with_averages
from medplus.analysis.results.cells import comparable
from medplus.analysis.results.reference import Reference
from medplus.curves.kept import Curve
from medplus.run.record import RunRecord


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
        One row per dataset, protocol, backbone and size; see `medplus.analysis.results.cells`. Of
        runs, `backbone` is who is compared: its name, and what tells it from others of the report.
    runs : pandas.DataFrame or None
        The runs that the cells were made of, one row each; see
        `medplus.analysis.results.runs.RUN_COLUMNS`. Their folders stand in the column ``run``.
        None for published numbers.
    chosen : pandas.DataFrame or None
        The same with what was best on val in each cell, whatever `runs` are; it is what a verdict
        is on.
    conditions : mapping of str to str
        Per protocol, what all its cells have in common.
    baseline : bool
        Whether the numbers are published ones, of which nothing else is known.
    reference : Reference or None
        What the runs are set beside.
    tolerance : float
        Percent points of ACC by which they may differ from it.
    unlike : pandas.DataFrame
        Cells that take no part, since they were made under other conditions.
    skipped : tuple of (str, str)
        Records that could not be read, and why.
    folded : tuple of RunRecord
        Cross-validated runs.
    curves : tuple of Curve
        Learning curves.
    """

    title: str
    source: str
    created: str
    cells: pd.DataFrame
    runs: pd.DataFrame | None = None
    chosen: pd.DataFrame | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    baseline: bool = False
    reference: Reference | None = None
    tolerance: float = 0.0
    unlike: pd.DataFrame = field(default_factory=pd.DataFrame)
    skipped: tuple[tuple[str, str], ...] = ()
    folded: tuple[RunRecord, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def backbones(self) -> pd.Series:
        """All backbones, from which each has its colour."""
        return self.cells["backbone"]

    @cached_property
    def n_datasets(self) -> int:
        """The number of datasets."""
        return int(self.cells["dataset"].nunique())

    @cached_property
    def averages(self) -> pd.DataFrame:
        """The cells, and after them their means over datasets."""
        return with_averages(self.cells)

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The cells of the backbones that rankings and tests are of."""
        return comparable(self.cells)[0]

    @cached_property
    def left_out(self) -> list[str]:
        """The backbones that rankings and tests leave out, since they lack what others have."""
        return comparable(self.cells)[1]

    @cached_property
    def means(self) -> pd.DataFrame:
        """ACC of datasets × compared backbones, averaged over protocols and sizes."""
        return dataset_means(self.compared)

    def supports(self, datasets: int, backbones: int) -> bool:
        """Tell whether a comparison has so many datasets and backbones."""
        n_datasets, n_backbones = self.means.shape
        return bool(n_datasets >= datasets and n_backbones >= backbones)
