"""Whose data and weights a report is made of: how they may be used, and what is to be cited."""

from __future__ import annotations

import pandas as pd

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.section import Section
from medplus.analysis.table import Table
from medplus.datasets import catalog

SOURCE_COLUMNS = ["dataset", "data", "licence", "citation"]
WEIGHTS_COLUMNS = ["backbone", "licence"]


def sources(benchmark: Benchmark) -> Section | None:
    """Return the data and weights, licences and citations; None where nothing is known of them."""
    if benchmark.runs is None and not benchmark.baseline:
        return None
    caption = "The data, their licences, and what is to be cited"
    tables = [Table.of("datasets", caption, sources_of(benchmark), " ".join(SOURCE_COLUMNS))]
    weights = weights_of(benchmark)
    if len(weights):
        told = "The licences of pretrained weights, as far as they are known"
        tables.append(Table.of("weights", told, weights, " ".join(WEIGHTS_COLUMNS)))
    return Section(
        name="datasets",
        title="Data, licences and citations",
        short="Data",
        text="What the owners of the data ask for; each MedMNIST collection also has a source of "
        "its own, which medmnist.com names.",
        tables=tuple(tables),
        notes=tuple(_warnings(benchmark.runs)),
    )


def sources_of(benchmark: Benchmark) -> pd.DataFrame:
    """Return a row per dataset, columns `SOURCE_COLUMNS`, as its records or MedMNIST say it."""
    if benchmark.runs is None:
        names = sorted(benchmark.cells["dataset"].unique())
        rows = [(one, "official", catalog.info(one).licence, catalog.CITATION) for one in names]
        return pd.DataFrame(rows, columns=SOURCE_COLUMNS)
    # Where records of one dataset say different things all are told; one that says nothing takes
    # nothing from the others.
    runs = benchmark.runs
    said = runs.assign(data=runs["conditions"].map(lambda conditions: conditions["data"]))
    groups = said.sort_values("created").groupby("dataset")[SOURCE_COLUMNS[1:]]
    return groups.agg(lambda texts: "; ".join(dict.fromkeys(filter(None, texts)))).reset_index()


def weights_of(benchmark: Benchmark) -> pd.DataFrame:
    """Return a row per backbone whose weights' licence is known, columns `WEIGHTS_COLUMNS`."""
    if benchmark.runs is None:
        return pd.DataFrame(columns=WEIGHTS_COLUMNS)
    said = benchmark.runs[["backbone", "weights_licence"]].dropna().drop_duplicates()
    known = said[said["weights_licence"] != ""].sort_values("backbone")
    return known.set_axis(WEIGHTS_COLUMNS, axis=1).reset_index(drop=True)


def _warnings(runs: pd.DataFrame | None) -> list[str]:
    """Return what the data cards of the runs warned of."""
    if runs is None:
        return []
    said = {
        (dataset, text)
        for dataset, texts in zip(runs["dataset"], runs["warnings"], strict=True)
        if isinstance(texts, tuple)
        for text in texts
    }
    return [f"{dataset}: {text}." for dataset, text in sorted(said)]
