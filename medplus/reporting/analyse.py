"""From results to an `Analysis`: which statistics, over what, and what a reader must know."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from medplus.errors import MedplusError
from medplus.reporting.against import TOLERANCE, against_paper, newcomers
from medplus.reporting.analysis import Analysis, Note
from medplus.reporting.baseline import DOI, load_baseline
from medplus.reporting.cells import KEYS, comparable
from medplus.reporting.findings import findings_of
from medplus.reporting.notes import notes_on
from medplus.reporting.runs import Runs
from medplus.reporting.select import filtered, select_alike
from medplus.reporting.sources import published_sources, sources_of
from medplus.reporting.statistics.averages import with_averages
from medplus.reporting.statistics.friedman import friedman
from medplus.reporting.statistics.gains import resolution_gains
from medplus.reporting.statistics.intervals import over_datasets, over_samples, over_seeds
from medplus.reporting.statistics.paired import N_RESAMPLES, Pair
from medplus.reporting.statistics.pairwise import holm, pairwise
from medplus.reporting.statistics.pareto import pareto
from medplus.reporting.statistics.percentiles import dataset_means, percentiles
from medplus.reporting.statistics.ranking import top_ranks
from medplus.reporting.statistics.ties import settle
from medplus.reporting.statistics.transfer import default_transfers
from medplus.reporting.verdict import verdicts_on
from medplus.runs.ledger import read_predictions

PAIRED_COLUMNS = [
    "dataset", "protocol", "size", "best", "second", "acc_difference", "low", "high", "p_value",
    "p_holm", "n_resamples", "n_images", "seeds", "chosen_on",
]  # fmt: skip


def analyse_baseline() -> Analysis:
    """Return the analysis of the paper's published numbers."""
    cells = load_baseline()
    return _analyse(
        cells,
        datasets=published_sources(sorted(cells["dataset"].unique())),
        title="The MedMNIST+ benchmark as published",
        baseline=True,
        source=f"Doerrich et al., Scientific Reports 15, 7669 (2025), doi:{DOI}; means over three "
        "seeds as printed, k-NN as one number",
        conditions={
            "finetune": "as published: AdamW, lr 1e-4, at most 100 epochs",
            "probe": "as published: AdamW, lr 1e-4, at most 100 epochs",
            "knn": "as published: k = 11, Euclidean",
        },
    )


def analyse_runs(
    runs: Runs,
    source: str,
    title: str | None = None,
    only: Sequence[tuple[str, str]] = (),
    tuned: Literal["fixed", "val"] = "fixed",
    against: bool = False,
    tolerance: float = TOLERANCE,
) -> Analysis:
    """Return the analysis of recorded runs.

    Parameters
    ----------
    runs : Runs
        As `medplus.reporting.runs.read_runs` returns them.
    source : str
        Where they come from, in one line.
    title : str, optional
    only, tuned
        See `medplus.reporting.select.select_alike`.
    against : bool
        Set the runs beside the paper's numbers.
    tolerance : float
        Percent points of ACC by which they may differ from the paper's.

    Raises
    ------
    UsageError
        If `only` names what no run has.
    """
    selection = select_alike(runs.table, only, tuned)
    paired, unreadable = _best_against_second(selection.cells, selection.runs)
    return _analyse(
        selection.cells,
        selection.runs,
        unreadable,
        title=title or "Your runs",
        source=source,
        conditions=selection.conditions,
        datasets=sources_of(selection.runs),
        paired=paired,
        against=against_paper(selection.cells, selection.runs, tolerance) if against else None,
        newcomers=newcomers(selection.cells, selection.runs) if against else None,
        unlike=selection.unlike,
        skipped=runs.skipped,
        verdicts=tuple(verdicts_on(filtered(runs.table, only))),
    )


def analyse_cells(cells: pd.DataFrame, runs: pd.DataFrame | None = None, **about: Any) -> Analysis:
    """Compute all statistics of a table of cells; what they say is not yet told.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.reporting.cells`.
    runs : pandas.DataFrame, optional
        The runs that the cells were made of.
    **about
        The further fields of `Analysis`.

    Returns
    -------
    Analysis
        Without notes and findings.
    """
    compared, left_out = comparable(cells)
    means = dataset_means(compared)
    intervals = [] if runs is None else [over_seeds(runs)]
    intervals += [over_datasets(cells), over_samples(cells)]
    return Analysis(
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cells=cells,
        benchmark=with_averages(cells),
        ranking=top_ranks(compared),
        gains=resolution_gains(cells),
        means=means,
        percentiles=percentiles(means),
        pairwise=pairwise(means),
        friedman=friedman(means),
        intervals=pd.concat([one for one in intervals if len(one)] or intervals[-1:]),
        transfers=tuple(default_transfers(compared)),
        costs=pareto(compared),
        left_out=tuple(left_out),
        **about,
    )


def _analyse(
    cells: pd.DataFrame, runs: pd.DataFrame | None = None, unreadable: int = 0, **about: Any
) -> Analysis:
    found = analyse_cells(cells, runs, **about)
    devices = sorted(set() if runs is None else set(runs["device"]) - {""})
    notes = [*notes_on(found, devices, unreadable), *_warnings_of(runs)]
    return replace(found, notes=tuple(notes), findings=tuple(findings_of(found)))


def _warnings_of(runs: pd.DataFrame | None) -> list[Note]:
    """Return what the data cards of the runs warned of."""
    if runs is None:
        return []
    said = {
        (dataset, text)
        for dataset, texts in zip(runs["dataset"], runs["warnings"], strict=True)
        if isinstance(texts, tuple)
        for text in texts
    }
    return [Note("benchmark", f"{dataset}: {text}.") for dataset, text in sorted(said)]


def _best_against_second(cells: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Compare the best backbone of each setting with the second best, image by image.

    All seeds count: an image is as right as the share of seeds that have it right. The two are
    chosen on val, if all backbones of the setting were scored there; chosen on test, they would be
    compared by the scores that chose them, and p would be too small. p is also corrected for the
    settings, after Holm.

    Returns
    -------
    paired : pandas.DataFrame
        Columns `PAIRED_COLUMNS`.
    unreadable : int
        Pairs whose predictions could not be read.
    """
    rows, unreadable = [], 0
    by_cell = dict(iter(runs.sort_values("seed").groupby(KEYS)))
    for setting, group in cells.groupby(["dataset", "protocol", "size"], sort=False):
        if len(group) < 2:
            continue
        dataset, protocol, size = setting
        chosen_on, column = "test", "acc_mean"
        if group["val_mean"].notna().all():
            chosen_on, column = "val", "val_mean"
        best = list(group.loc[settle(group[column]).nlargest(2).index, "backbone"])
        sides = [by_cell[dataset, protocol, name, size] for name in best]
        try:
            saved = [[read_predictions(Path(run)) for run in side["run"]] for side in sides]
            compared = Pair(saved[0], saved[1], sides[0]["task"].iloc[0])
            acc = compared.accuracy()
        except (MedplusError, KeyError, ValueError, IndexError):
            unreadable += 1
            continue
        rows.append(
            (*setting, *best, acc.value, acc.low, acc.high, acc.p_value, acc.p_value, N_RESAMPLES,
             compared.n_images, _seeds(sides), chosen_on)
        )  # fmt: skip
    paired = pd.DataFrame(rows, columns=PAIRED_COLUMNS)
    return paired.assign(p_holm=holm(paired["p_value"])), unreadable


def _seeds(sides: Sequence[pd.DataFrame]) -> str:
    told = [", ".join(map(str, side["seed"].dropna())) for side in sides]
    return " and ".join(dict.fromkeys(told))
