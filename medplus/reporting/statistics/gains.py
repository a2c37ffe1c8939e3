"""What a larger size brings."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from medplus.analysis.results.cells import PROTOCOLS, order_backbones
from medplus.analysis.results.ties import settle

_COLUMNS = ["protocol", "backbone", "from_size", "to_size", "improved", "n_datasets"]


def resolution_gains(cells: pd.DataFrame) -> pd.DataFrame:
    """Count on how many datasets each step to the next size improves the mean ACC.

    The steps lie between consecutive sizes of the table (the paper's Figure 3: 28 to 64, 64 to
    128, 128 to 224). Equal is no improvement.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, backbone, from_size, to_size, improved, n_datasets: of the `n_datasets`
        that have both sizes, `improved` are strictly better at the larger one. Steps that no
        dataset has are left out.
    """
    acc = cells.assign(acc_mean=settle(cells["acc_mean"])).pivot(
        index=["protocol", "backbone", "dataset"], columns="size", values="acc_mean"
    )
    place = order_backbones(cells["backbone"]).index
    rows = []
    for smaller, larger in pairwise(sorted(acc.columns)):
        both = acc[[smaller, larger]].dropna()
        better = both[larger] > both[smaller]
        for (protocol, backbone), of_step in better.groupby(["protocol", "backbone"]):
            counts = (int(of_step.sum()), len(of_step))
            rows.append((protocol, backbone, int(smaller), int(larger), *counts))
    rows.sort(key=lambda row: (PROTOCOLS.index(row[0]), place(row[1]), row[2]))
    return pd.DataFrame(rows, columns=_COLUMNS)
