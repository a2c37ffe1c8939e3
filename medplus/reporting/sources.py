"""Whose data a report is made of: under what they may be used, and what is to be cited."""

from __future__ import annotations

import pandas as pd

from medplus.datasets import catalog

SOURCE_COLUMNS = ["dataset", "data", "licence", "citation"]


def sources_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per dataset of runs, columns `SOURCE_COLUMNS`.

    Where records of one dataset say different things all are told; one that says nothing takes
    nothing from the others.
    """
    said = runs.assign(data=runs["conditions"].map(lambda conditions: conditions["data"]))
    columns = SOURCE_COLUMNS[1:]
    told = said.sort_values("created").groupby("dataset")[columns].agg(_all_that_is_said)
    return told.reset_index()


def published_sources(datasets: list[str]) -> pd.DataFrame:
    """Return the same of MedMNIST's collections, as MedMNIST states it."""
    rows = [(name, "official", catalog.info(name).licence, catalog.CITATION) for name in datasets]
    return pd.DataFrame(rows, columns=SOURCE_COLUMNS)


def _all_that_is_said(texts: pd.Series) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
