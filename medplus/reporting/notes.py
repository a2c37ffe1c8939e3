"""What a reader must know of an analysis before believing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from medplus.naming import counted
from medplus.reporting.analysis import Analysis, Note
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.statistics.pairwise import smallest_p


def notes_on(
    analysis: Analysis, devices: Sequence[str] = (), unreadable: int = 0
) -> Iterator[Note]:
    """Yield the notes.

    Parameters
    ----------
    analysis : Analysis
    devices : sequence of str
        On which the runs were made.
    unreadable : int
        Pairs of runs whose predictions could not be read.
    """
    return chain(
        _on_coverage(analysis),
        _on_power(analysis),
        _on_seeds(analysis),
        _on_costs(analysis, devices),
        _on_transfers(analysis),
        _on_what_is_left_out(analysis, unreadable),
    )


def _on_coverage(analysis: Analysis) -> Iterator[Note]:
    cells, total = analysis.cells, analysis.cells["dataset"].nunique()
    sizes = cells.groupby("protocol")["size"].nunique().sum()
    wanted = total * cells["backbone"].nunique() * sizes
    if len(cells) < wanted:
        yield Note(
            "benchmark",
            f"{wanted - len(cells)} of {wanted} cells of the grid have no runs; they are shown as "
            "missing, and rankings and tests are over what all backbones have.",
        )
    over = cells.groupby(["protocol", "size"])["dataset"].nunique()
    if (fewer := over[over < total]).any():
        places = (f"{PROTOCOL_LABELS[name]} {size} px ({n})" for (name, size), n in fewer.items())
        yield Note(
            "benchmark",
            f"Averages over fewer than all {total} datasets, not to be compared with others: "
            f"{', '.join(places)}.",
        )
    if analysis.left_out:
        yield Note(
            "ranking",
            f"Left out of rankings and tests, since they lack settings that all others have: "
            f"{', '.join(analysis.left_out)}.",
        )
    if lacking := total - len(analysis.means):
        yield Note(
            "pairwise",
            f"{lacking} of {total} datasets have no setting that all "
            "backbones were run at, and do not count here.",
        )


def _on_power(analysis: Analysis) -> Iterator[Note]:
    n_datasets, n_backbones = analysis.means.shape
    if n_backbones < 2:
        yield Note("pairwise", "One backbone alone cannot be compared.")
        return
    threshold, least = analysis.pairwise["threshold"].iloc[0], smallest_p(n_datasets)
    if least >= threshold:
        yield Note(
            "pairwise",
            f"{counted(n_datasets, 'dataset')} cannot support a claim about "
            f"{counted(len(analysis.pairwise), 'pair')}: the smallest p that the "
            f"test can give is {least:.3g}, and {threshold:.3g} is asked for.",
        )
    else:
        yield Note(
            "pairwise",
            f"{n_datasets} datasets support only large claims: a pair must agree on nearly all of "
            f"them to reach p < {threshold:.3g} (the smallest possible is {least:.3g}).",
        )
    if analysis.friedman is not None and n_datasets <= 10:
        yield Note(
            "friedman",
            f"Friedman's p is an approximation that wants more than 10 datasets; here are "
            f"{n_datasets}.",
        )


def _on_seeds(analysis: Analysis) -> Iterator[Note]:
    trained = analysis.cells[analysis.cells["protocol"] != "knn"]
    single = int((trained["n_seeds"] == 1).sum())
    if single and not analysis.baseline:
        yield Note(
            "benchmark",
            f"{single} of {len(trained)} cells of trained protocols are of one seed only: they "
            "have no standard deviation, and what another seed would give is not known.",
        )


def _on_costs(analysis: Analysis, devices: Sequence[str]) -> Iterator[Note]:
    if analysis.baseline:
        yield Note("costs", "The paper does not tell what its runs have cost, so none are shown.")
    elif analysis.costs.empty:
        yield Note("costs", "No cost is known for settings that share a dataset.")
    else:
        yield Note(
            "costs",
            "Device seconds of one run: all of a fine-tuning; of a head its own share and the "
            "whole extraction of its embeddings.",
        )
        if len(devices) > 1:
            yield Note(
                "costs",
                f"They were measured on different devices ({', '.join(devices)}), and compare only "
                "roughly.",
            )


def _on_transfers(analysis: Analysis) -> Iterator[Note]:
    few = [one.n_datasets for one in analysis.transfers if one.n_datasets < 3]
    if few:
        yield Note(
            "transfers",
            f"A rank correlation over {counted(few[0], 'dataset')} has no interval.",
        )


def _on_what_is_left_out(analysis: Analysis, unreadable: int) -> Iterator[Note]:
    if len(analysis.unlike):
        yield Note(
            "unlike",
            f"{counted(len(analysis.unlike), 'cell')} made under other conditions stand in no "
            "other table; --only KEY=VALUE chooses other conditions.",
        )
    if analysis.skipped:
        told = counted(len(analysis.skipped), "record")
        yield Note("overview", f"{told} could not be read: left out.")
    if unreadable:
        yield Note(
            "paired",
            f"Not compared: {counted(unreadable, 'pair')} of runs, where predictions cannot be "
            "read or are of other test images.",
        )
