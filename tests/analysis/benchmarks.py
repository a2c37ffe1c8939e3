"""Benchmarks to analyse: of the paper, of a small grid, and of names that nobody should use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.document import Document, analyse
from medplus.analysis.results.cells import sort_cells
from medplus.reporting.figures import draw

HOSTILE = (
    "<script>alert(1)</script>",
    "a_b&c%$#{}~^\\",
    "x|y",
    "_hidden$^{2}$",
    '`tick` "quoted" [0] *bold*',
)


def document_of(cells: pd.DataFrame, **about: object) -> Document:
    fixed = {"title": "Test", "source": "a test", "created": "2025-01-01T00:00:00Z"}
    return analyse(Benchmark(**fixed | {"cells": cells} | about))


def drawn(document: Document) -> dict[str, Figure]:
    """Return all figures by name."""
    return {figure.name: draw(figure) for figure in document.figures}


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
    """Return five backbones and six datasets under hostile names."""
    flags = ("bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist")
    few = part(
        cells,
        dataset=flags,
        backbone=tuple(dict.fromkeys(cells["backbone"]))[:5],
        size=(28, 64),
    )
    datasets = dict(zip(flags, ("<b>&</b>|", "$x_1$ 50%", "c", "d", "e", "f"), strict=True))
    few = few.assign(dataset=few["dataset"].map(datasets), device_seconds=10.0)
    few["device_seconds"] += np.arange(len(few))
    return renamed(few, dict(zip(dict.fromkeys(few["backbone"]), HOSTILE, strict=True)))
