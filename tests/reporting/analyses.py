"""Analyses to render: of the paper, of a small grid, and of names that nobody should use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from medplus.reporting.analyse import analyse_cells
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import sort_cells
from medplus.reporting.statistics.intervals import over_datasets

HOSTILE = (
    "<script>alert(1)</script>",
    "a_b&c%$#{}~^\\",
    "x|y",
    "_hidden$^{2}$",
    '`tick` "quoted" [0] *bold*',
)


def analysis_of(cells: pd.DataFrame, **changes: object) -> Analysis:
    about = {"title": "Test", "source": "a test", "conditions": {}, "datasets": pd.DataFrame()}
    made = analyse_cells(cells, **about)
    few = {"intervals": over_datasets(cells), "created": "2025-01-01T00:00:00Z"}
    return replace(made, **few | changes)


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
