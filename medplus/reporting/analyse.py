"""From results to an `Analysis`: which statistics, over what, and what a reader must know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd

from medplus.errors import MedplusError
from medplus.reporting import findings
from medplus.reporting.against import TOLERANCE, against_paper, newcomers
from medplus.reporting.analysis import Analysis
from medplus.reporting.baseline import DOI, load_baseline
from medplus.reporting.cells import KEYS, Note, comparable
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.runs import Runs
from medplus.reporting.select import UNLIKE_COLUMNS, select_alike
from medplus.reporting.sources import published_sources, sources_of
from medplus.reporting.statistics.averages import with_averages
from medplus.reporting.statistics.friedman import Friedman, friedman
from medplus.reporting.statistics.gains import resolution_gains
from medplus.reporting.statistics.intervals import over_datasets, over_samples, over_seeds
from medplus.reporting.statistics.paired import paired_accuracy
from medplus.reporting.statistics.pairwise import comparisons, pairwise, smallest_p
from medplus.reporting.statistics.pareto import pareto
from medplus.reporting.statistics.percentiles import dataset_means, percentiles
from medplus.reporting.statistics.ranking import settings_counted, top_ranks
from medplus.reporting.statistics.transfer import Transfer, default_transfers
from medplus.runs.ledger import read_predictions
from medplus.vocabulary import Task

N_RESAMPLES = 1000
"""Of the test images, for the best backbone against the second best."""

PAIRED_COLUMNS = [
    "dataset", "protocol", "size", "best", "second", "acc_difference", "low", "high", "p_value",
    "n_resamples", "n_images", "seeds",
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
        title=title or "Your runs",
        baseline=False,
        source=source,
        conditions=selection.conditions,
        datasets=sources_of(selection.runs),
        runs=selection.runs,
        paired=paired,
        unreadable=unreadable,
        against=against_paper(selection.cells, selection.runs, tolerance) if against else None,
        newcomers=newcomers(selection.cells, selection.runs) if against else None,
        unlike=selection.unlike,
        skipped=runs.skipped,
    )


def _analyse(
    cells: pd.DataFrame,
    *,
    runs: pd.DataFrame | None = None,
    paired: pd.DataFrame | None = None,
    unreadable: int = 0,
    unlike: pd.DataFrame | None = None,
    **given: Any,
) -> Analysis:
    benchmark = with_averages(cells)
    compared, left_out = comparable(cells)
    means = dataset_means(compared)
    ranking, settings = top_ranks(compared), settings_counted(compared)
    gains = resolution_gains(cells)
    pairs, more = pairwise(means), comparisons(means)
    ranks = friedman(means)
    transfers = tuple(default_transfers(compared))
    front = pareto(compared)
    unlike = pd.DataFrame(columns=UNLIKE_COLUMNS) if unlike is None else unlike
    found = chain(
        findings.best_averages(benchmark),
        findings.reproduction(given.get("against")),
        findings.ranks_of_newcomers(given.get("newcomers")),
        findings.protocol_gaps(cells),
        findings.resolution(gains),
        findings.winners(ranking, settings),
        findings.significance(pairs, more, ranks),
        findings.predictions(transfers),
        findings.costs(front),
    )
    notes = chain(
        _on_coverage(cells, means, left_out),
        _on_power(means, pairs, ranks),
        _on_seeds(cells, runs),
        _on_costs(front, given["baseline"], runs),
        _on_transfers(transfers),
        _on_what_is_left_out(unlike, given.get("skipped", ()), unreadable),
    )
    intervals = [over_datasets(cells), over_samples(cells)]
    if runs is not None:
        intervals.insert(0, over_seeds(runs))
    return Analysis(
        **{"against": None, "newcomers": None, "skipped": (), **given},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cells=cells,
        benchmark=benchmark,
        ranking=ranking,
        settings=settings,
        gains=gains,
        means=means,
        percentiles=percentiles(means),
        pairwise=pairs,
        comparisons=more,
        friedman=ranks,
        intervals=pd.concat([one for one in intervals if len(one)], ignore_index=True)
        if any(map(len, intervals))
        else intervals[-1],
        transfers=transfers,
        costs=front,
        paired=pd.DataFrame(columns=PAIRED_COLUMNS) if paired is None else paired,
        unlike=unlike,
        notes=tuple(notes),
        findings=tuple(found),
    )


def _best_against_second(cells: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Compare the best backbone of each setting with the second best, image by image.

    The two are chosen by the same scores that are compared, so that p is a little too small; and
    they are compared by one seed's runs, the first that both have.

    Returns
    -------
    paired : pandas.DataFrame
        Columns `PAIRED_COLUMNS`.
    unreadable : int
        Pairs whose predictions could not be read.
    """
    rows, unreadable = [], 0
    by_cell = dict(iter(runs.groupby(KEYS)))
    for setting, group in cells.groupby(["dataset", "protocol", "size"], sort=False):
        if len(group) < 2:
            continue
        dataset, protocol, size = cast(tuple[str, str, int], setting)
        first, second = group.nlargest(2, "acc_mean")["backbone"]
        pair = [
            by_cell[dataset, protocol, name, size].fillna({"seed": -1}) for name in (first, second)
        ]
        common = sorted(set(pair[0]["seed"]) & set(pair[1]["seed"]))
        if not common:
            continue
        seed = common[0]
        chosen = [one[one["seed"] == seed].iloc[0] for one in pair]
        try:
            ours, theirs = (read_predictions(Path(one["run"])) for one in chosen)
            task = cast(Task, chosen[0]["task"])
            acc, n_images = paired_accuracy(ours, theirs, task, N_RESAMPLES)
        except (MedplusError, KeyError, ValueError, IndexError):
            unreadable += 1
            continue
        rows.append(
            (dataset, protocol, size, first, second, acc.value, acc.low, acc.high, acc.p_value,
             N_RESAMPLES, n_images, "" if seed < 0 else str(int(seed)))
        )  # fmt: skip
    return pd.DataFrame(rows, columns=PAIRED_COLUMNS), unreadable


def _on_coverage(
    cells: pd.DataFrame, means: pd.DataFrame, left_out: Sequence[str]
) -> Iterator[Note]:
    sizes = {name: rows["size"].nunique() for name, rows in cells.groupby("protocol")}
    wanted = cells["dataset"].nunique() * cells["backbone"].nunique() * sum(sizes.values())
    if len(cells) < wanted:
        yield Note(
            "benchmark",
            f"{wanted - len(cells)} of {wanted} cells of the grid have no runs; they are shown as "
            "missing, and rankings and tests are over what all backbones have.",
        )
    over = cells.groupby(["protocol", "size"])["dataset"].nunique()
    total = cells["dataset"].nunique()
    if (fewer := over[over < total]).any():
        places = (f"{PROTOCOL_LABELS[name]} {size} px ({n})" for (name, size), n in fewer.items())
        yield Note(
            "benchmark",
            f"Averages over fewer than all {total} datasets, not to be compared with others: "
            f"{', '.join(places)}.",
        )
    if left_out:
        yield Note(
            "ranking",
            f"Left out of rankings and tests, since they lack settings that all others have: "
            f"{', '.join(left_out)}.",
        )
    lacking = cells["dataset"].nunique() - len(means)
    if lacking:
        yield Note(
            "pairwise",
            f"{lacking} of {cells['dataset'].nunique()} datasets have no setting that all "
            "backbones were run at, and do not count here.",
        )


def _on_power(means: pd.DataFrame, pairs: pd.DataFrame, ranks: Friedman | None) -> Iterator[Note]:
    n_datasets, n_backbones = means.shape
    if n_backbones < 2:
        yield Note("pairwise", "One backbone alone cannot be compared.")
        return
    threshold, least = pairs["threshold"].iloc[0], smallest_p(n_datasets)
    if least >= threshold:
        yield Note(
            "pairwise",
            f"{n_datasets} {'dataset' if n_datasets == 1 else 'datasets'} cannot support a claim "
            f"about {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'}: the smallest p that the "
            f"test can give is {least:.3g}, and {threshold:.3g} is asked for.",
        )
    else:
        yield Note(
            "pairwise",
            f"{n_datasets} datasets support only large claims: a pair must agree on nearly all of "
            f"them to reach p < {threshold:.3g} (the smallest possible is {least:.3g}).",
        )
    if ranks is not None and n_datasets <= 10:
        yield Note(
            "friedman",
            f"Friedman's p is an approximation that wants more than 10 datasets; here are "
            f"{n_datasets}.",
        )


def _on_seeds(cells: pd.DataFrame, runs: pd.DataFrame | None) -> Iterator[Note]:
    trained = cells[cells["protocol"] != "knn"]
    single = int((trained["n_seeds"] == 1).sum())
    if runs is not None and single:
        yield Note(
            "benchmark",
            f"{single} of {len(trained)} cells of trained protocols are of one seed only: they "
            "have no standard deviation, and what another seed would give is not known.",
        )


def _on_costs(front: pd.DataFrame, baseline: bool, runs: pd.DataFrame | None) -> Iterator[Note]:
    if baseline:
        yield Note("costs", "The paper does not tell what its runs have cost, so none are shown.")
    elif front.empty:
        yield Note("costs", "No cost is known for settings that share a dataset.")
    else:
        yield Note(
            "costs",
            "Device seconds of one run: all of a fine-tuning; of a head its own share and the "
            "whole extraction of its embeddings.",
        )
        devices = sorted(set() if runs is None else set(runs["device"]) - {""})
        if len(devices) > 1:
            yield Note(
                "costs",
                f"They were measured on different devices ({', '.join(devices)}), and compare only "
                "roughly.",
            )


def _on_transfers(transfers: Sequence[Transfer]) -> Iterator[Note]:
    for one in transfers:
        if one.n_datasets < 3:
            yield Note(
                "transfers",
                f"A rank correlation over {one.n_datasets} "
                f"{'dataset' if one.n_datasets == 1 else 'datasets'} has no interval.",
            )
            return


def _on_what_is_left_out(
    unlike: pd.DataFrame, skipped: Sequence[tuple[str, str]], unreadable: int
) -> Iterator[Note]:
    if len(unlike):
        yield Note(
            "unlike",
            f"{_count(len(unlike), 'cell')} made under other conditions stand in no other table; "
            "--only KEY=VALUE chooses other conditions.",
        )
    if skipped:
        yield Note("overview", f"{_count(len(skipped), 'record')} could not be read: left out.")
    if unreadable:
        yield Note(
            "paired",
            f"Not compared: {_count(unreadable, 'pair')} of runs, where predictions cannot be read "
            "or are of other test images.",
        )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
