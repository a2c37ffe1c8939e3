"""Where new backbones would stand among those of the paper, or of others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from medplus.analysis.against import differences
from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import label_of, setting_label
from medplus.analysis.results.cells import KEYS, Extent
from medplus.analysis.results.contenders import AXES
from medplus.analysis.results.reference import Reference
from medplus.analysis.results.runs import describe
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Section
from medplus.analysis.table import Table
from medplus.naming import counted

NEWCOMER_COLUMNS = [
    "backbone", "protocol", "size", "rank", "rank_low", "rank_high", "of", "n_datasets", "over",
    "conditions", "differs",
]  # fmt: skip
_RESAMPLES = 2000
_FEWEST_DATASETS = 3


def newcomers(benchmark: Benchmark) -> Section | None:
    """Return the ranks of new backbones; None where there are none, or nobody asked."""
    reference = benchmark.reference
    if reference is None or benchmark.runs is None:
        return None
    found = ranks_among(benchmark.compared, benchmark.runs, reference)
    if found.empty:
        return None
    caption = (
        f"Ranks that new backbones take among those of {reference.name}, by mean ACC, with 95 % "
        "intervals; there is none under other conditions than theirs"
    )
    return Section(
        name="newcomers",
        title=f"New backbones among those of {reference.name}",
        short="New backbones",
        text="The rank that each backbone would take by its mean ACC, over the datasets that you "
        "ran under the same conditions. The interval is over other datasets (bootstrap), or on one "
        "or two over other test images; theirs count as certain.",
        tables=(Table.of("newcomers", caption, found, " ".join(NEWCOMER_COLUMNS)),),
        sentences=tuple(ranks_told(found, reference.name)),
    )


def ranks_among(cells: pd.DataFrame, runs: pd.DataFrame, reference: Reference) -> pd.DataFrame:
    """Return the ranks that backbones of your own would take among those of a reference.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.
    runs : pandas.DataFrame
        The runs that the cells were made of. Phantoms and data of your own cannot be ranked
        among the paper's: of its datasets they only have the name.
    reference : Reference

    Returns
    -------
    pandas.DataFrame
        Columns `NEWCOMER_COLUMNS`. Per protocol and size, mean ACC over their datasets that the
        backbone was run on, against the same mean of each of theirs; `rank` 1 is best, and an
        equal mean ranks behind theirs. `rank_low` and `rank_high` are the ends of a 95 % interval,
        by a bootstrap of the datasets, or on one or two by the intervals over their test images;
        `over` says which. Where `differs` names a condition that is not theirs there is no rank:
        another recipe would be compared, not another backbone.
    """
    rows, told = [], reference.cells[["backbone", *AXES]]
    table = reference.cells.assign(rival=told.agg(" ".join, axis=1))
    if reference.data:
        runs = runs[runs["conditions"].map(lambda c: c["data"] in reference.data)]
    new = cells[~cells["network"].isin(table["backbone"])]
    new = new.merge(runs[KEYS].drop_duplicates(), on=KEYS)
    new = new.assign(differs=differences(new, runs, reference))
    extent, groups = Extent.of(new), dict(iter(new.groupby(["backbone", "protocol", "size"])))
    for key in product(extent.backbones, extent.protocols, extent.sizes):
        if key not in groups:
            continue
        ours, (_, protocol, size) = groups[key].set_index("dataset"), key
        setting = table[(table["protocol"] == protocol) & (table["size"] == size)]
        theirs = setting.pivot(index="dataset", columns="rival", values="acc_mean")
        theirs = theirs.dropna(axis="columns")
        common = theirs.index.intersection(ours.index)
        if not len(common):
            continue
        differs = ", ".join(dict.fromkeys(filter(None, map(_of_recipe, ours["differs"]))))
        unknown = (pd.NA, pd.NA, pd.NA, "")
        *ends, over = unknown if differs else _ranks(ours.loc[common], theirs.loc[common])
        said = describe(reference.conditions.get(protocol, {}))
        rows.append((*key, *ends, theirs.shape[1] + 1, len(common), over, said, differs))
    found = pd.DataFrame(rows, columns=NEWCOMER_COLUMNS)
    return found.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))


def _ranks(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[Any, Any, Any, str]:
    """Return the rank among theirs, the ends of its interval, and what that is over."""

    def rank(mine: Any, rivals: Any) -> int:
        return 1 + int((settle(rivals) >= settle(mine)).sum())

    mine, rivals = ours["acc_mean"].to_numpy(), theirs.to_numpy()
    at, n = rank(mine.mean(), rivals.mean(axis=0)), len(mine)
    if n >= _FEWEST_DATASETS:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n
        ranks = [rank(m, r) for m, r in zip(drawn @ mine, drawn @ rivals, strict=True)]
        low, high = np.quantile(ranks, [0.025, 0.975], method="nearest")
        return at, min(int(low), at), max(int(high), at), "datasets"
    ends = ours[["acc_high", "acc_low"]].mean(skipna=False)
    if ends.isna().any():
        return at, pd.NA, pd.NA, ""
    low, high = (rank(end, rivals.mean(axis=0)) for end in ends)
    return at, low, high, "test images"


def _of_recipe(differs: str) -> str:
    """Leave out the data: an unofficial file is one of the paper's datasets all the same."""
    return ", ".join(one for one in differs.split(", ") if not one.startswith("data "))


def ranks_told(newcomers: pd.DataFrame, name: str) -> Iterator[str]:
    """Yield the rank that each new backbone would take, by each protocol at its largest size.

    The size is chosen by no score: the best of several ranks would be a lucky one.
    """
    for (backbone, protocol), rows in newcomers.groupby(["backbone", "protocol"], sort=False):
        row = rows.loc[rows["size"].idxmax()]
        who, setting = label_of(str(backbone)), setting_label(protocol, row["size"])
        if row["differs"]:
            yield (
                f"{who} has no rank among those of {name} under {setting}: it was run with "
                f"{row['differs']}; their conditions are {row['conditions']}."
            )
            continue
        interval = ""
        if pd.notna(row["rank_low"]):
            ends = f"{row['rank_low']} to {row['rank_high']}"
            interval = f" (95 % interval {ends}, over other {row['over']})"
        conditions = f", under the same {row['conditions']}" if row["conditions"] else ""
        yield (
            f"{who} would be {row['rank']} of {row['of']} among those of {name}{interval} under "
            f"{setting}, over {counted(row['n_datasets'], 'dataset')}{conditions}."
        )
