"""Each backbone's ACC on each dataset, and its spread over datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medplus.reporting.cells import complete_blocks, order_backbones, sort_cells

_PERCENTILES = (25, 50, 75)

RELATED = dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), "organ{a,c,s}mnist")
"""Datasets that show the same patients, and the name of all of them together."""


def dataset_means(cells: pd.DataFrame) -> pd.DataFrame:
    """Average each backbone's ACC over protocols and sizes, for each dataset.

    As in the paper, where there are 12 settings for each dataset. In a partial grid a dataset's
    mean is over those of its settings that all backbones of the table have, so that a row compares
    like with like.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.

    Returns
    -------
    pandas.DataFrame of float, datasets × backbones
        Percent; backbones ordered by `order_backbones`. Datasets without such a setting are left
        out.
    """
    scored = cells.dropna(subset="acc_mean")
    # In a fixed order, as the last digit of a mean depends on it.
    blocks = sort_cells(complete_blocks(scored))
    backbones = order_backbones(scored["backbone"])
    means = blocks.groupby(["dataset", "backbone"])["acc_mean"].mean().unstack("backbone")
    return means.reindex(columns=pd.Index(backbones, name="backbone")).astype(float)


def merge_related(means: pd.DataFrame) -> pd.DataFrame:
    """Return the means with datasets that share patients merged into one, by their mean.

    OrganAMNIST, OrganCMNIST and OrganSMNIST are axial, coronal and sagittal slices of the same
    CT scans [1]_; as independent datasets a test counts them three times.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `dataset_means`.

    Returns
    -------
    pandas.DataFrame
        Equal to `means` where there is at most one of them.

    References
    ----------
    .. [1] Yang et al., "MedMNIST v2", Scientific Data 10, 41, 2023.
    """
    names = [RELATED.get(str(name), str(name)) for name in means.index]
    return means.groupby(pd.Index(names, name=means.index.name)).mean()


def percentiles(means: pd.DataFrame) -> pd.DataFrame:
    """Return the quartiles over datasets, by numpy's linear interpolation as in the paper.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `dataset_means`.

    Returns
    -------
    pandas.DataFrame
        Columns backbone, p25, p50, p75; NaN where there is no dataset.
    """
    names = [f"p{percent}" for percent in _PERCENTILES]
    quartiles = (
        np.percentile(means.to_numpy(), _PERCENTILES, axis=0)
        if len(means)
        else np.full((len(names), means.shape[1]), np.nan)
    )
    table = pd.DataFrame(quartiles.T, columns=names)
    table.insert(0, "backbone", list(means.columns))
    return table
