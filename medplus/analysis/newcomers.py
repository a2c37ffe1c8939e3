"""Where new backbones would stand among those of the paper, or of others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.results.cells import KEYS, Extent
from medplus.analysis.results.reference import Reference
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Section
from medplus.analysis.table import Table
from medplus.naming import counted

if TYPE_CHECKING:
    from medplus.analysis.benchmark import Benchmark

NEWCOMER_COLUMNS = ["backbone", "protocol", "size", "rank", "of", "n_datasets"]


def newcomers(benchmark: Benchmark) -> Section | None:
    """Return the ranks of new backbones; None where there are none, or nobody asked."""
    reference = benchmark.reference
    if reference is None or benchmark.runs is None:
        return None
    found = ranks_among(benchmark.compared, benchmark.runs, reference)
    if found.empty:
        return None
    caption = f"Ranks that new backbones take among those of {reference.name}, by mean ACC"
    return Section(
        name="newcomers",
        title=f"New backbones among those of {reference.name}",
        short="New backbones",
        text="The rank that each backbone would take by its mean ACC, over the datasets that you "
        "ran.",
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
        equal mean ranks behind theirs.
    """
    table, rows = reference.cells, []
    if reference.data:
        runs = runs[runs["conditions"].map(lambda c: c["data"] in reference.data)]
    new = cells[~cells["network"].isin(table["backbone"])]
    new = new.merge(runs[KEYS].drop_duplicates(), on=KEYS)
    extent, groups = Extent.of(new), dict(iter(new.groupby(["backbone", "protocol", "size"])))
    for key in product(extent.backbones, extent.protocols, extent.sizes):
        if key not in groups:
            continue
        ours, (_, protocol, size) = groups[key], key
        setting = table[(table["protocol"] == protocol) & (table["size"] == size)]
        theirs = setting.pivot(index="dataset", columns="backbone", values="acc_mean")
        theirs = theirs.dropna(axis="columns")
        common = theirs.index.intersection(ours["dataset"])
        if len(common):
            mine = settle(ours.set_index("dataset")["acc_mean"].loc[common].mean())
            better = int((settle(theirs.loc[common].mean()) >= mine).sum())
            rows.append((*key, better + 1, theirs.shape[1] + 1, len(common)))
    return pd.DataFrame(rows, columns=NEWCOMER_COLUMNS)


def ranks_told(newcomers: pd.DataFrame, name: str) -> Iterator[str]:
    """Yield the best rank that each new backbone would take."""
    for backbone, rows in newcomers.groupby("backbone", sort=False):
        best = rows.loc[rows["rank"].idxmin()]
        yield (
            f"{label_of(str(backbone))} would be {best['rank']} of {best['of']} among those of "
            f"{name} at best ({PROTOCOL_LABELS[best['protocol']]}, {best['size']} px, over "
            f"{counted(best['n_datasets'], 'dataset')})."
        )
