"""Your results beside the paper's: reproduced or not, and where a new backbone would stand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from medplus.backbones.catalog import PAPER
from medplus.reporting.baseline import load_baseline, paper_conditions
from medplus.reporting.cells import KEYS
from medplus.reporting.runs import ANY, describe
from medplus.reporting.series import Extent
from medplus.reporting.statistics.ties import settle

TOLERANCE = 2.0
"""Percent points of ACC; BreastMNIST's test set has 156 images, of which one is 0.64."""

_PRINTED = 0.005
"""The paper's numbers are rounded to two decimals: so far off may each of them be."""

_THEIR_DATA = ("official", "unofficial")
"""An unofficial file says that it is one of the paper's datasets, and is not proven to be."""

AGAINST_COLUMNS = [
    *KEYS, "acc", "paper_acc", "paper_std", "difference", "within_spread", "within_interval",
    "tolerance", "passed", "differs",
]  # fmt: skip
NEWCOMER_COLUMNS = [
    "backbone", "protocol", "size", "rank", "rank_low", "rank_high", "of", "n_datasets", "over",
    "conditions", "differs",
]  # fmt: skip
_RESAMPLES = 2000
_FEWEST_DATASETS = 3


def against_paper(
    cells: pd.DataFrame, runs: pd.DataFrame, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """Set the cells beside the paper's.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`, with the further columns of runs.
    runs : pandas.DataFrame
        The runs that the cells were made of, for their conditions.
    tolerance : float
        Percent points of ACC.

    Returns
    -------
    pandas.DataFrame
        Columns `AGAINST_COLUMNS`, a row for each cell that the paper has. `difference` is yours
        minus the paper's, in percent points. `within_spread` says whether it is at most the paper's
        standard deviation over seeds, as far as two printed decimals tell, and `within_interval`
        whether the paper's ACC lies in your 95 % interval over test samples; both are None where
        there is none. `passed` says whether the difference is within the tolerance. `differs` names
        the conditions that are not the paper's: with any of them a difference tells nothing about
        the code.
    """
    paper = load_baseline().set_index(KEYS)[["acc_mean", "acc_std"]]
    both = cells.merge(
        paper.rename(columns={"acc_mean": "paper_acc", "acc_std": "paper_std"}),
        left_on=KEYS,
        right_index=True,
    )
    difference = (both["acc_mean"] - both["paper_acc"]).round(8)
    inside = (both["acc_low"] <= both["paper_acc"]) & (both["paper_acc"] <= both["acc_high"])
    found = both.assign(
        acc=both["acc_mean"],
        difference=difference,
        within_spread=_known(
            difference.abs() <= both["paper_std"] + 2 * _PRINTED, both["paper_std"].notna()
        ),
        within_interval=_known(inside, both["acc_low"].notna()),
        tolerance=tolerance,
        passed=difference.abs() <= tolerance,
        differs=_differences(both, runs),
    )
    return found[AGAINST_COLUMNS].reset_index(drop=True)


def newcomers(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the ranks that backbones of your own would take among the paper's ten.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.
    runs : pandas.DataFrame
        The runs that the cells were made of. Phantoms and data of your own cannot be ranked: of
        the paper's datasets they only have the name.

    Returns
    -------
    pandas.DataFrame
        Columns `NEWCOMER_COLUMNS`. Per protocol and size, mean ACC over the paper's datasets that
        the backbone was run on, against the same mean of each of the ten; `rank` 1 is best, and an
        equal mean ranks behind the paper's. `rank_low` and `rank_high` are the ends of a 95 %
        interval, by a bootstrap of the datasets, or on one or two by the intervals over their test
        images; `over` says which. Where `differs` names a condition that is not the paper's there
        is no rank: another recipe would be compared, not another backbone.
    """
    paper = load_baseline()
    rows = []
    theirs = runs[runs["conditions"].map(lambda c: c["data"] in _THEIR_DATA)]
    new = cells[~cells["backbone"].isin(PAPER)].merge(theirs[KEYS].drop_duplicates(), on=KEYS)
    new = new.assign(differs=_differences(new, runs))
    extent, groups = Extent.of(new), dict(iter(new.groupby(["backbone", "protocol", "size"])))
    for key in product(extent.backbones, extent.protocols, extent.sizes):
        if key not in groups:
            continue
        ours, (_, protocol, size) = groups[key].set_index("dataset"), key
        setting = paper[(paper["protocol"] == protocol) & (paper["size"] == size)]
        ten = setting.pivot(index="dataset", columns="backbone", values="acc_mean")
        common = ten.index.intersection(ours.index)
        if not len(common):
            continue
        # An unofficial file is one of the paper's datasets all the same.
        differs = ", ".join(dict.fromkeys(filter(None, map(_of_recipe, ours["differs"]))))
        ranks = (pd.NA, pd.NA, pd.NA, "") if differs else _ranks(ours.loc[common], ten.loc[common])
        *ends, over = ranks
        said = describe(paper_conditions(protocol))
        rows.append((*key, *ends, ten.shape[1] + 1, len(common), over, said, differs))
    found = pd.DataFrame(rows, columns=NEWCOMER_COLUMNS)
    return found.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))


def _ranks(ours: pd.DataFrame, ten: pd.DataFrame) -> tuple[Any, Any, Any, str]:
    """Return the rank among the ten, the ends of its interval, and what that is over."""

    def rank(mine: Any, rivals: Any) -> Any:
        return 1 + (settle(rivals) >= settle(mine)).sum()

    mine, rivals = ours["acc_mean"].to_numpy(), ten.to_numpy()
    at = int(rank(mine.mean(), rivals.mean(axis=0)))
    n = len(mine)
    if n >= _FEWEST_DATASETS:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n
        ranks = [rank(m, r) for m, r in zip(drawn @ mine, drawn @ rivals, strict=True)]
        low, high = np.quantile(ranks, [0.025, 0.975], method="nearest")
        return at, int(min(low, at)), int(max(high, at)), "datasets"
    ends = ours[["acc_high", "acc_low"]].mean(skipna=False)
    if ends.isna().any():
        return at, pd.NA, pd.NA, ""
    low, high = (int(rank(end, rivals.mean(axis=0))) for end in ends)
    return at, low, high, "test images"


def _of_recipe(differs: str) -> str:
    return ", ".join(one for one in differs.split(", ") if not one.startswith("data "))


def _known(values: pd.Series, known: pd.Series) -> pd.Series:
    return values.astype(object).where(known, None)


def _differences(cells: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    first = {key: rows["conditions"].iloc[0] for key, rows in runs.groupby(KEYS)}
    texts = []
    for row in cells[KEYS].itertuples(index=False, name=None):
        conditions: Mapping[str, str] = first.get(row, {})
        wanted = paper_conditions(row[KEYS.index("protocol")])
        texts.append(
            ", ".join(
                f"{name} {conditions[name]}"
                for name, value in wanted.items()
                if conditions.get(name, value) not in (value, ANY)
            )
        )
    return texts
