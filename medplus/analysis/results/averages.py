"""Means over datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medplus.analysis.results.cells import (
    AVERAGE,
    COLUMNS,
    SCORES,
    complete_blocks,
    order_backbones,
    sort_cells,
)

RELATED = dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), "organ{a,c,s}mnist")
"""Datasets that show the same patients, and the name of all of them together."""


def with_averages(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the benchmark table: the cells, and after them their means over datasets.

    Means over different datasets cannot be compared. Per protocol and size the mean is that over
    all datasets which the table has there, and a backbone that lacks one of them gets no row. This
    is how the paper averages, its standard deviations included: those are means of the datasets'
    standard deviations.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`, in the order of `sort_cells`; the means, with dataset ``average``, come
        last. A mean is NaN where a dataset has no such score; `n_seeds` is the smallest of the
        datasets.
    """
    benchmark = sort_cells(cells[COLUMNS])
    groups = on_all_datasets(benchmark).groupby(["protocol", "backbone", "size"])
    if not groups.ngroups:
        return benchmark
    means = groups[SCORES].agg(mean_over_datasets).join(groups["n_seeds"].min()).reset_index()
    means = sort_cells(means.assign(dataset=AVERAGE)[COLUMNS])
    return pd.concat([benchmark, means], ignore_index=True)


def on_all_datasets(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the backbones that have every dataset of their protocol and size."""
    wanted = cells.groupby(["protocol", "size"])["dataset"].transform("nunique")
    has = cells.groupby(["protocol", "backbone", "size"])["dataset"].transform("nunique")
    return cells[has == wanted]


def mean_over_datasets(values: pd.Series) -> float:
    """Return the mean as numpy sums it, over datasets in alphabetical order.

    One published average in eleven lies halfway between two decimals, so that the last bit of the
    sum decides how it is rounded: only this sum, rounded by `numpy.round`, gives all 360 published
    averages to the digit.

    Parameters
    ----------
    values : pandas.Series of float
        One per dataset, in the order of `sort_cells`.

    Returns
    -------
    float
        NaN if a value is.
    """
    return float(np.mean(values.to_numpy(dtype=np.float64)))


def dataset_means(cells: pd.DataFrame) -> pd.DataFrame:
    """Average each backbone's ACC over protocols and sizes, for each dataset.

    As in the paper, where there are 12 settings for each dataset. In a partial grid a dataset's
    mean is over those of its settings that all backbones of the table have, so that a row compares
    like with like.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

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
