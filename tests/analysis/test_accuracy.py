"""The table of all results: what is marked in it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medplus.analysis.accuracy import best_and_second
from medplus.analysis.results.cells import KEYS


def test_equal_scores_share_a_mark_and_a_cell_alone_has_none() -> None:
    cells = pd.DataFrame(
        [("d", "knn", "a", 28, 90.001), ("d", "knn", "b", 28, 90.004), ("d", "knn", "c", 28, 89.0),
         ("d", "knn", "a", 64, 95.0), ("d", "probe", "a", 28, np.nan)],
        columns=[*KEYS, "acc_mean"],
    )  # fmt: skip
    assert best_and_second(cells, "acc_mean") == ["best", "best", "second", "", ""]
