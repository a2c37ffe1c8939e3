"""What tables and drawings share: marks, and the numbers of boxes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats

from medplus.reporting.baseline import load_baseline
from medplus.reporting.cells import KEYS
from medplus.reporting.series import best_and_second, boxes_of


def test_equal_scores_share_a_mark_and_a_cell_alone_has_none() -> None:
    cells = pd.DataFrame(
        [("d", "knn", "a", 28, 90.001), ("d", "knn", "b", 28, 90.004), ("d", "knn", "c", 28, 89.0),
         ("d", "knn", "a", 64, 95.0), ("d", "probe", "a", 28, np.nan)],
        columns=[*KEYS, "acc_mean"],
    )  # fmt: skip
    assert best_and_second(cells, "acc_mean") == ["best", "best", "second", "", ""]


def test_boxes_are_matplotlibs() -> None:
    cells = load_baseline()
    groups = dict(iter(cells.groupby(["protocol", "backbone", "size"])["acc_mean"]))
    for key, box in boxes_of(cells).items():
        (stats,) = boxplot_stats(groups.pop(key).to_numpy())
        found = [box.q1, box.median, box.q3, box.low, box.high]
        wanted = [stats[name] for name in ("q1", "med", "q3", "whislo", "whishi")]
        np.testing.assert_allclose(found, wanted)
        assert sorted(box.outliers) == sorted(stats["fliers"])
    assert not groups
