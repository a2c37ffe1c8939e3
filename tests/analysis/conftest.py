"""Tables of cells: the paper's, and small ones with holes, ties and missing scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import COLUMNS, PROTOCOLS, SCORES

BACKBONES = ("pixels", "my<b>net", "resnet18", "vgg16", "a_first")
"""In none of the orders that a report could put them in."""

Rows = dict[tuple[str, str, str, int], float]


@pytest.fixture(scope="session")
def baseline() -> pd.DataFrame:
    return load_baseline()


@pytest.fixture(scope="session")
def make_cells() -> Callable[..., pd.DataFrame]:
    """Return a function from {(dataset, protocol, backbone, size): ACC} to cells."""

    def make(acc: Rows, **columns: object) -> pd.DataFrame:
        rows = [(*key, score, 1.0, score, 0.5, 3) for key, score in acc.items()]
        return pd.DataFrame(rows, columns=COLUMNS).assign(**columns)

    return make


@pytest.fixture(scope="session")
def acc_of() -> Callable[[pd.DataFrame], Rows]:
    """Return a function from cells to {(dataset, protocol, backbone, size): ACC}, NaN left out."""

    def of(cells: pd.DataFrame) -> Rows:
        return {
            (row["dataset"], row["protocol"], row["backbone"], row["size"]): row["acc_mean"]
            for row in cells.to_dict("records")
            if row["acc_mean"] == row["acc_mean"]
        }

    return of


@pytest.fixture(scope="session")
def grids() -> st.SearchStrategy[pd.DataFrame]:
    """Return a strategy of grids: shuffled, few distinct scores, some cells missing or NaN."""
    return st.builds(
        _grid,
        n_datasets=st.integers(1, 4),
        n_protocols=st.integers(1, 3),
        n_backbones=st.integers(1, 5),
        sizes=st.lists(st.sampled_from([28, 32, 64, 224]), min_size=1, max_size=3, unique=True),
        missing=st.sampled_from([0.0, 0.05, 0.4]),
        empty=st.sampled_from([0.0, 0.05]),
        levels=st.sampled_from([1, 3, 50]),
        seed=st.integers(0, 10_000),
    )


def _grid(n_datasets, n_protocols, n_backbones, sizes, missing, empty, levels, seed):
    rng = np.random.default_rng(seed)
    rows = [
        (f"d{dataset}", protocol, backbone, size)
        for dataset in range(n_datasets)
        for protocol in PROTOCOLS[:n_protocols]
        for backbone in BACKBONES[:n_backbones]
        for size in sizes
    ]
    scores = rng.integers(0, levels, (len(rows), 4)) * 0.7 + 60
    scores[rng.random(scores.shape) < empty] = np.nan
    cells = pd.DataFrame(rows, columns=COLUMNS[:4])
    cells[SCORES] = scores
    cells["n_seeds"] = rng.integers(1, 4, len(rows))
    kept = cells[rng.random(len(rows)) >= missing]
    return (kept if len(kept) else cells).sample(frac=1, random_state=seed, ignore_index=True)
