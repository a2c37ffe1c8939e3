"""The sections that infer: tests, intervals, costs, and what the cheap predicts."""

from __future__ import annotations

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones
from medplus.reporting.page.columns import BACKBONE, DATASET, PAIR, PROTOCOL, SIZE
from medplus.reporting.page.parts import Section, verdict
from medplus.reporting.palette import label_of
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer
from medplus.reporting.table import Block, Cell, Column, cross_block, list_block, number

_OVER = {
    "seeds": "Over seeds: what another seed would change (Student's t interval of the mean over "
    "seeds)",
    "datasets": "Over datasets: what another choice of datasets would change (percentile bootstrap "
    "of the mean over datasets)",
    "test samples": "Over test images: what other images of the same kind would change (percentile "
    "bootstrap over the images of the test set)",
}


def pairwise_section(analysis: Analysis) -> Section:
    """Return the paper's tests of all pairs."""
    frame = analysis.pairwise
    threshold, firm = fmt.significant(frame["threshold"].iloc[0]), int(frame["significant"].sum())
    columns = [
        *PAIR, number("p", "p_value", fmt.significant),
        number("Threshold", "threshold", fmt.significant),
        Column("Significant", "significant", verdict),
        Column("Higher mean", "favoured", lambda name: label_of(name) if name else fmt.MISSING),
    ]  # fmt: skip
    return Section(
        "pairwise",
        "Pairwise tests",
        "Pairwise differences, as the paper tests them",
        f"Two-sided Wilcoxon signed-rank tests over {len(analysis.means)} datasets, each with "
        "its ACC averaged over the protocols and sizes that all backbones have. With "
        f"Bonferroni's correction p must lie below {threshold} "
        f"(0.05 / {len(frame)}): {firm} of {len(frame)} pairs do.\n\n"
        "The row is better than the column where the cell is blue, worse where it is orange; "
        "pale where the difference is not significant.",
        (list_block("p value of every pair", frame, columns),),
        ("fig5_pairwise",),
    )


def comparisons_section(analysis: Analysis) -> Section:
    """Return the same pairs by Holm's correction."""
    frame = analysis.pairwise
    columns = [
        *PAIR, number("Datasets", "n_datasets"),
        number("Mean difference", "mean_difference", fmt.difference),
        number("Effect size", "effect_size", fmt.difference),
        number("p", "p_value", fmt.significant), number("p (Holm)", "p_holm", fmt.significant),
        Column("Significant", "significant_holm", verdict),
    ]  # fmt: skip
    title = "Pairs with Holm's correction; differences in percent points"
    return Section(
        "comparisons",
        "Holm, effect sizes",
        "The same pairs by Holm, with effect sizes",
        "Not in the paper. Holm's correction guards against the same error as Bonferroni's and "
        f"finds no fewer differences: here {int(frame['significant_holm'].sum())} of "
        f"{len(frame)}. The effect size is "
        "the matched-pairs rank-biserial correlation: 1 where the first is better on every "
        "dataset, −1 where the second is, 0 for a balance.",
        tables=(list_block(title, frame, columns, folded=len(frame) > 15),),
    )


def friedman_section(result: Friedman) -> Section:
    """Return the test of all backbones at once."""
    ranks = result.mean_ranks.sort_values().rename_axis("backbone").reset_index(name="rank")
    groups = [", ".join(label_of(name) for name in clique) for clique in result.cliques]
    groups_table = list_block(
        "Groups within which no two differ significantly",
        pd.DataFrame({"group": range(1, len(groups) + 1), "backbones": groups}),
        [Column("Group", "group"), Column("Backbones", "backbones")],
    )
    rank = number("Mean rank", "rank", "{:.2f}".format)
    return Section(
        "friedman",
        "Critical difference",
        "All backbones at once: Friedman's test and critical difference",
        f"Friedman's test over {result.n_datasets} datasets: χ² = {result.statistic:.2f}, "
        f"p = {fmt.significant(result.p_value)}. By Nemenyi's test two mean ranks differ at "
        f"the 5 % level where they are {result.critical_difference:.2f} or more apart "
        "(Demšar 2006).\n\n"
        "A bar joins backbones that cannot be told apart.",
        (list_block("Mean ranks", ranks, [BACKBONE, rank]), groups_table),
        ("nemenyi", "fig7_critical_difference"),
    )


def intervals_section(analysis: Analysis) -> Section:
    """Return the three uncertainties, a table each."""
    parts = {over: analysis.intervals[analysis.intervals["over"] == over] for over in _OVER}
    return Section(
        "intervals",
        "Intervals",
        "How certain the means are: three uncertainties, kept apart",
        "An interval over seeds, one over datasets and one over test images answer three "
        "different questions; none contains another, and they must not be mixed. All are of "
        "95 %. The figure shows those over datasets.",
        tuple(_intervals(over, rows) for over, rows in parts.items() if len(rows)),
        ("fig10_intervals",),
    )


def _intervals(over: str, rows: pd.DataFrame) -> Block:
    of_datasets = over == "datasets"
    columns = [
        BACKBONE, *(() if of_datasets else (DATASET,)), PROTOCOL, SIZE,
        number("Mean ACC", "mean", fmt.read_percent),
        number("95 % interval", "low high", fmt.interval),
        number("Datasets" if of_datasets else "Seeds", "n"),
    ]  # fmt: skip
    return list_block(_OVER[over], rows, columns)


def paired_section(analysis: Analysis) -> Section:
    """Return the best against the second best."""
    frame = analysis.paired
    columns = [
        DATASET, PROTOCOL, SIZE, Column("Best", "best"), Column("Second", "second"),
        number("Difference", "acc_difference", fmt.difference),
        number("95 % interval", "low high", fmt.interval),
        number("p", "p_value", fmt.significant), number("Images", "n_images"),
        number("Seeds", "seeds", str),
    ]  # fmt: skip
    title = "Differences of ACC in percent points, with 95 % intervals"
    return Section(
        "paired",
        "Best and second",
        "Best against second best on the same images",
        "A paired bootstrap: both are scored on the same resamples of the test images. An "
        "interval that holds 0 means that these images cannot tell the two apart.",
        tables=(list_block(title, frame, columns, folded=len(frame) > 15),),
    )


def costs_section(analysis: Analysis) -> Section:
    """Return what was measured of costs."""
    frame = analysis.costs
    if frame.empty:
        told = any(note.where == "costs" for note in analysis.notes)
        text = "" if told else "No cost is known."
        return Section("costs", "Cost", "Accuracy against cost", text)
    columns = [
        Column("Backbone", "backbone"), PROTOCOL, SIZE,
        number("ACC (%)", "acc", fmt.read_percent),
        number("Device time", "device_seconds", fmt.read_seconds),
        number("Datasets", "n_datasets"),
        Column("On the front", "front", lambda on_it: verdict(True) if on_it else Cell("no")),
    ]  # fmt: skip
    return Section(
        "costs",
        "Cost",
        "Accuracy against cost",
        "Mean ACC over the measured device time of one run, extraction included. On the "
        "Pareto front stands what no other setting beats or equals at the same or a lower "
        "cost.",
        (list_block("ACC and cost, cheapest first", frame.sort_values("device_seconds"), columns),),
        ("fig6_cost",),
    )


def transfers_section(analysis: Analysis) -> Section:
    """Return how well the cheap predicts the expensive."""
    results = analysis.transfers
    columns = [
        Column("Pair", "label"), number("ρ", "rho", fmt.read_percent),
        number("95 % interval", "low high", fmt.interval),
        number("Regret", "regret", fmt.read_percent), number("Datasets", "n_datasets"),
        number("Backbones", "n_backbones"),
    ]  # fmt: skip
    frame = pd.DataFrame([{**vars(result), "label": result.label} for result in results])
    correlations = list_block("Rank correlation and regret", frame, columns, folded=False)
    return Section(
        "transfers",
        "Cheap predicts",
        "Does the cheap predict the expensive?",
        "Within each dataset the backbones are ranked by the cheap protocol and by the "
        "expensive one. ρ is Spearman's correlation of the two, averaged over datasets, with a "
        "bootstrap interval over datasets. Regret: the percent points of ACC by the expensive "
        "protocol that you lose if you take the backbone that the cheap one ranks first.\n\n"
        "Coloured symbols are means over datasets, grey ones single datasets. On the dashed "
        "line both ranks agree.",
        (correlations, *map(_points_table, results)),
        ("transfer", "fig8_transfer"),
    )


def _points_table(result: Transfer) -> Block:
    points = result.points
    cells = {
        (row.dataset, row.backbone): f"{row.cheap_rank:g} → {row.target_rank:g}"
        for row in points.itertuples()
    }
    columns = {name: number(label_of(name)) for name in order_backbones(points["backbone"])}
    names = {name: (name,) for name in sorted(set(points["dataset"]))}
    return cross_block(f"Ranks: {result.label}", [Column("Dataset")], names, columns, cells)
