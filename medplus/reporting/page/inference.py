"""The sections that infer: tests, intervals, costs, and what the cheap predicts."""

from __future__ import annotations

import pandas as pd

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones
from medplus.reporting.page import inference_charts
from medplus.reporting.page.numbers import (
    MISSING,
    difference,
    interval,
    percent,
    seconds,
    significant,
    whole,
)
from medplus.reporting.page.parts import (
    Cell,
    Section,
    Table,
    number_columns,
    table,
    text_columns,
    verdict,
)
from medplus.reporting.palette import PROTOCOL_LABELS, label_of
from medplus.reporting.statistics.transfer import Transfer

_OVER = {
    "seeds": (
        "Over seeds: what another seed would change",
        "Student's t interval of the mean over seeds",
    ),
    "datasets": (
        "Over datasets: what another choice of datasets would change",
        "percentile bootstrap of the mean over datasets",
    ),
    "test samples": (
        "Over test images: what other images of the same kind would change",
        "percentile bootstrap over the images of the test set",
    ),
}


def pairwise_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.pairwise
    if frame.empty:
        return None
    rows = [
        [label_of(row.backbone_a), label_of(row.backbone_b), significant(row.p_value),
         significant(row.threshold), verdict(row.significant),
         label_of(row.favoured) if row.favoured else MISSING]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    n_significant = int(frame["significant"].sum())
    return Section(
        "pairwise",
        "Pairwise differences, as the paper tests them",
        (
            f"Two-sided Wilcoxon signed-rank tests over {len(analysis.means)} datasets, each with "
            "its ACC averaged over the protocols and sizes that all backbones have. With "
            f"Bonferroni's correction p must lie below {significant(frame['threshold'].iloc[0])} "
            f"(0.05 / {len(frame)}): {n_significant} of {len(frame)} pairs do, marked ●.",
            "The row is better than the column where the cell is blue, worse where it is orange; "
            "the stronger the colour, the smaller p.",
        ),
        (inference_charts.pairwise(frame),),
        (
            table(
                "p value of every pair",
                [
                    *text_columns("Backbone", "Against"),
                    *number_columns("p", "Threshold"),
                    *text_columns("Significant", "Higher mean"),
                ],
                rows,
            ),
        ),
        ("pairwise",),
    )


def comparisons_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.comparisons
    if frame.empty:
        return None
    rows = [
        [label_of(row.backbone_a), label_of(row.backbone_b), whole(row.n_datasets),
         difference(row.mean_difference), difference(row.effect_size), significant(row.p_value),
         significant(row.p_holm), verdict(row.significant_holm)]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    n_significant = int(frame["significant_holm"].sum())
    return Section(
        "comparisons",
        "The same pairs by Holm, with effect sizes",
        (
            "Not in the paper. Holm's correction guards against the same error as Bonferroni's and "
            f"finds no fewer differences: here {n_significant} of {len(frame)}. The effect size is "
            "the matched-pairs rank-biserial correlation: 1 where the first is better on every "
            "dataset, −1 where the second is, 0 for a balance.",
        ),
        tables=(
            table(
                "Pairs with Holm's correction; differences in percent points",
                [
                    *text_columns("Backbone", "Against"),
                    *number_columns("Datasets", "Mean difference", "Effect size", "p", "p (Holm)"),
                    *text_columns("Significant"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("comparisons",),
    )


def friedman_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    result = analysis.friedman
    if result is None:
        return None
    ranks = result.mean_ranks.sort_values()
    groups = [", ".join(label_of(name) for name in clique) for clique in result.cliques]
    rows = [[label_of(str(name)), f"{value:.2f}"] for name, value in ranks.items()]
    return Section(
        "friedman",
        "All backbones at once: Friedman's test and critical difference",
        (
            f"Friedman's test over {result.n_datasets} datasets: χ² = {result.statistic:.2f}, "
            f"p = {significant(result.p_value)}. By Nemenyi's test two mean ranks differ at the "
            f"5 % level where they are {result.critical_difference:.2f} or more apart "
            "(Demšar 2006).",
            "Each bar reaches half of that to both sides: backbones whose bars overlap cannot be "
            "told apart.",
        ),
        (inference_charts.mean_ranks(result),),
        (
            table("Mean ranks", [*text_columns("Backbone"), *number_columns("Mean rank")], rows),
            table(
                "Groups within which no two differ significantly",
                text_columns("Group", "Backbones"),
                [[f"{i}", group] for i, group in enumerate(groups, 1)],
            ),
        ),
        ("friedman", "nemenyi", "critical_difference"),
    )


def intervals_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.intervals
    if frame.empty:
        return None
    tables = []
    for over, (title, method) in _OVER.items():
        rows = frame[frame["over"] == over]
        if len(rows):
            tables.append(_interval_table(rows, f"{title} ({method})", over))
    over_datasets = frame[(frame["over"] == "datasets") & frame["low"].notna()]
    drawn = (inference_charts.dataset_intervals(over_datasets),) if len(over_datasets) else ()
    return Section(
        "intervals",
        "How certain the means are: three uncertainties, kept apart",
        (
            "An interval over seeds, one over datasets and one over test images answer three "
            "different questions; none contains another, and they must not be mixed. All are of "
            "95 %." + (" The chart shows those over datasets." if drawn else ""),
        ),
        drawn,
        tuple(tables),
        ("intervals",),
    )


def _interval_table(frame: pd.DataFrame, caption: str, over: str) -> Table:
    datasets = [] if over == "datasets" else ["Dataset"]
    rows = [
        [label_of(row.backbone), *([row.dataset] if datasets else []),
         PROTOCOL_LABELS[row.protocol], whole(row.size), percent(row.mean),
         interval(row.low, row.high), whole(row.n)]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    counted = "Datasets" if over == "datasets" else "Seeds"
    columns = [
        *text_columns("Backbone", *datasets, "Protocol"),
        *number_columns("Size (px)", "Mean ACC", "95 % interval", counted),
    ]
    return table(caption, columns, rows)


def paired_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.paired
    if frame.empty:
        return None
    rows = [
        [row.dataset, PROTOCOL_LABELS[row.protocol], whole(row.size), row.best, row.second,
         difference(row.acc_difference), interval(row.low, row.high), significant(row.p_value),
         whole(row.n_images), str(row.seeds)]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    return Section(
        "paired",
        "Best against second best on the same images",
        (
            "A paired bootstrap: both are scored on the same resamples of the test images. An "
            "interval that holds 0 means that these images cannot tell the two apart.",
        ),
        tables=(
            table(
                "Differences of ACC in percent points, with 95 % intervals",
                [
                    *text_columns("Dataset", "Protocol"),
                    *number_columns("Size (px)"),
                    *text_columns("Best", "Second"),
                    *number_columns("Difference", "95 % interval", "p", "Images", "Seeds"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("paired",),
    )


def costs_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.costs
    if frame.empty:
        told = any(note.where == "costs" for note in analysis.notes)
        text = () if told else ("No cost is known.",)
        return Section("costs", "Accuracy against cost", text)
    rows = [
        [row.backbone, PROTOCOL_LABELS[row.protocol], whole(row.size), percent(row.acc),
         seconds(row.device_seconds), whole(row.n_datasets), _front(row.front)]
        for row in frame.sort_values("device_seconds").itertuples(index=False)
    ]  # fmt: skip
    return Section(
        "costs",
        "Accuracy against cost",
        (
            "Mean ACC over the measured device time of one run, extraction included. On the "
            "Pareto front stands what no other setting beats or equals at the same or a lower "
            "cost. Circles are fine-tuned, diamonds probed, squares k-NN; the larger, the larger "
            "the images.",
        ),
        (inference_charts.pareto(frame),),
        (
            table(
                "ACC and cost, cheapest first",
                [
                    *text_columns("Backbone", "Protocol"),
                    *number_columns("Size (px)", "ACC (%)", "Device time", "Datasets"),
                    *text_columns("On the front"),
                ],
                rows,
            ),
        ),
        ("costs", "cost", "pareto"),
    )


def _front(on_it: bool) -> Cell:
    return verdict(True) if on_it else Cell("no")


def transfers_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    results = analysis.transfers
    if not results:
        return None
    rows = [
        [inference_charts.transfer_label(result), percent(result.rho),
         interval(result.low, result.high), percent(result.regret), whole(result.n_datasets),
         whole(result.n_backbones)]
        for result in results
    ]  # fmt: skip
    return Section(
        "transfers",
        "Does the cheap predict the expensive?",
        (
            "Within each dataset the backbones are ranked by the cheap protocol and by the "
            "expensive one. ρ is Spearman's correlation of the two, averaged over datasets, with a "
            "bootstrap interval over datasets. Regret: the percent points of ACC by the expensive "
            "protocol that you lose if you take the backbone that the cheap one ranks first.",
            "Large symbols are means over datasets, small ones single datasets, moved apart where "
            "they coincide. On the dotted line both ranks agree.",
        ),
        (inference_charts.transfers(results),),
        (
            table(
                "Rank correlation and regret",
                [
                    *text_columns("Pair"),
                    *number_columns("ρ", "95 % interval", "Regret", "Datasets", "Backbones"),
                ],
                rows,
                folded=False,
            ),
            *(_points_table(result) for result in results),
        ),
        ("transfer", "transfers"),
    )


def _points_table(result: Transfer) -> Table:
    points = result.points
    ranks = points.assign(
        text=[f"{row.cheap_rank:g} → {row.target_rank:g}" for row in points.itertuples(index=False)]
    ).pivot(index="dataset", columns="backbone", values="text")
    names = order_backbones(ranks.columns)
    return table(
        f"Ranks: {inference_charts.transfer_label(result)}",
        [*text_columns("Dataset"), *number_columns(*(label_of(name) for name in names))],
        [[str(dataset), *(row[name] for name in names)] for dataset, row in ranks.iterrows()],
    )
