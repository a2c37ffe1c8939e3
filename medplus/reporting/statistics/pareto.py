"""Accuracy against measured cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medplus.analysis.results.cells import AVERAGE, sort_cells
from medplus.analysis.results.ties import settle

_SETTING = ["protocol", "backbone", "size"]
_COLUMNS = [*_SETTING, "acc", "device_seconds", "n_datasets", "front"]


def pareto(cells: pd.DataFrame) -> pd.DataFrame:
    """Return mean ACC and mean cost of each protocol, backbone and size, and which are worth it.

    Both are means over the datasets on which every setting of the table that was measured at all
    was measured: costs of different datasets cannot be compared.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`. `device_seconds` is NaN where it was not measured; the
        paper's numbers have none.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, backbone, size, acc (percent), device_seconds, n_datasets, front. `front`
        is true where no other is at most as costly and at least as accurate, and better in one.
        Empty where nothing was measured, or the settings share no dataset.
    """
    if "device_seconds" not in cells.columns:
        return pd.DataFrame(columns=_COLUMNS)
    measured = cells.dropna(subset=["acc_mean", "device_seconds"])
    n_settings = len(measured[_SETTING].drop_duplicates())
    shared = measured[measured.groupby("dataset")["size"].transform("size") == n_settings]
    # In a fixed order, as the last digit of a mean depends on it.
    groups = shared.sort_values("dataset").groupby(_SETTING)
    table = groups.agg(
        acc=("acc_mean", "mean"),
        device_seconds=("device_seconds", "mean"),
        n_datasets=("dataset", "size"),
    ).reset_index()
    acc, cost = settle(table["acc"].to_numpy()), table["device_seconds"].to_numpy()
    table = table.assign(front=_undominated(acc, cost), dataset=AVERAGE)
    return sort_cells(table)[_COLUMNS]


def _undominated(acc: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Row: the one that may be dominated; column: the one that may dominate it.
    no_worse = (acc >= acc[:, None]) & (cost <= cost[:, None])
    better = (acc > acc[:, None]) | (cost < cost[:, None])
    undominated: NDArray[np.bool_] = ~np.any(no_worse & better, axis=1)
    return undominated
