"""Analyses to render: of the paper, of a small grid, and of names that nobody should use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import sort_cells
from medplus.reporting.statistics.averages import with_averages
from medplus.reporting.statistics.friedman import friedman
from medplus.reporting.statistics.gains import resolution_gains
from medplus.reporting.statistics.intervals import over_datasets
from medplus.reporting.statistics.pairwise import comparisons, pairwise
from medplus.reporting.statistics.pareto import pareto
from medplus.reporting.statistics.percentiles import dataset_means, percentiles
from medplus.reporting.statistics.ranking import settings_counted, top_ranks
from medplus.reporting.statistics.transfer import default_transfers

HOSTILE = (
    "<script>alert(1)</script>",
    "a_b&c%$#{}~^\\",
    "x|y",
    "_hidden$^{2}$",
    '`tick` "quoted" [0] *bold*',
)


def analysis_of(cells: pd.DataFrame, **changes: object) -> Analysis:
    means = dataset_means(cells)
    made = Analysis(
        title="Test",
        baseline=False,
        source="a test",
        created="2025-01-01T00:00:00Z",
        cells=cells,
        benchmark=with_averages(cells),
        ranking=top_ranks(cells),
        settings=settings_counted(cells),
        gains=resolution_gains(cells),
        means=means,
        percentiles=percentiles(means),
        pairwise=pairwise(means),
        comparisons=comparisons(means),
        friedman=friedman(means),
        intervals=over_datasets(cells, n_resamples=200),
        transfers=tuple(default_transfers(cells)),
        costs=pareto(cells),
        paired=pd.DataFrame(),
        against=None,
        newcomers=None,
        unlike=pd.DataFrame(),
        conditions={},
        datasets=pd.DataFrame(),
        skipped=(),
        notes=(),
        findings=(),
    )
    return replace(made, **changes)


def part(cells: pd.DataFrame, **wanted: tuple[object, ...]) -> pd.DataFrame:
    """Return the cells that have one of the values in each column."""
    for column, values in wanted.items():
        cells = cells[cells[column].isin(values)]
    return cells.reset_index(drop=True)


def tiny_grid(cells: pd.DataFrame) -> pd.DataFrame:
    """Return 2 datasets, 2 backbones, 1 size, kNN and probe, with costs."""
    few = part(
        cells,
        dataset=("bloodmnist", "breastmnist"),
        backbone=("resnet18", "vit_base_patch16_224.dino"),
        size=(28,),
        protocol=("knn", "probe"),
    )
    return few.assign(device_seconds=np.linspace(3.0, 40.0, len(few)))


def renamed(cells: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return sort_cells(cells.assign(backbone=cells["backbone"].map(names)))


def hostile_grid(cells: pd.DataFrame) -> pd.DataFrame:
    """Return five backbones and two datasets under hostile names."""
    few = part(
        cells,
        dataset=("bloodmnist", "breastmnist"),
        backbone=tuple(dict.fromkeys(cells["backbone"]))[:5],
        size=(28, 64),
    )
    datasets = {"bloodmnist": "<b>&</b>|", "breastmnist": "$x_1$ 50%"}
    few = few.assign(dataset=few["dataset"].map(datasets), device_seconds=10.0)
    few["device_seconds"] += np.arange(len(few))
    return renamed(few, dict(zip(dict.fromkeys(few["backbone"]), HOSTILE, strict=True)))
