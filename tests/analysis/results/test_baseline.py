"""The paper's numbers inside the package: all of them; `test_tables` has them as printed."""

from __future__ import annotations

import pandas as pd
import pytest

from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import COLUMNS, KEYS, SCORES
from medplus.backbones.catalog import PAPER
from medplus.datasets.catalog import FLAGS
from medplus.vocabulary import SIZES


@pytest.fixture(scope="module")
def baseline() -> pd.DataFrame:
    return load_baseline()


def test_grid_is_complete(baseline: pd.DataFrame) -> None:
    assert list(baseline.columns) == COLUMNS
    assert len(baseline) == 1440 == len(baseline[KEYS].drop_duplicates())
    assert set(baseline["dataset"]) == set(FLAGS)
    assert set(baseline["backbone"]) == set(PAPER)
    assert set(baseline["size"]) == set(SIZES)


def test_knn_has_acc_only_and_no_seeds(baseline: pd.DataFrame) -> None:
    knn = baseline["protocol"] == "knn"

    assert set(baseline.loc[knn, "n_seeds"]) == {1}
    assert set(baseline.loc[~knn, "n_seeds"]) == {3}
    assert baseline.loc[knn, ["acc_std", "auc_mean", "auc_std"]].isna().all(axis=None)
    assert baseline["acc_mean"].between(0, 100).all()
    assert baseline.loc[~knn, SCORES].notna().all(axis=None)
