"""The statistics of a report, each with its rule, its numbers and its warnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, AVERAGE, order_backbones, order_protocols
from medplus.reporting.page import charts
from medplus.reporting.page.leaderboard import best_and_second
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.numbers import (
    MISSING,
    difference,
    interval,
    percent,
    plus_minus,
    seconds,
    significant,
    whole,
)
from medplus.reporting.page.parts import Cell, Column, Section, Table
from medplus.reporting.palette import PROTOCOL_LABELS, label_of
from medplus.reporting.statistics.transfer import Transfer


def sections(analysis: Analysis, links: PageLinks) -> list[Section]:
    """Return the sections for which there is something to say, in the order of the page."""
    builders = (
        _against, _newcomers, _benchmark, _ranking, _gains, _spread, _pairwise, _comparisons,
        _friedman, _intervals, _paired, _costs, _transfers, partial(_unlike, links=links),
    )  # fmt: skip
    return [section for build in builders if (section := build(analysis)) is not None]


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    folded: bool = True,
) -> Table:
    """Return a table of cells, some of them given as plain text."""
    made = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    return Table(caption, tuple(columns), made, folded)


def _text(*labels: str) -> list[Column]:
    return [Column(label) for label in labels]


def _numbers(*labels: str) -> list[Column]:
    return [Column(label, numeric=True) for label in labels]


def _verdict(passed: bool, yes: str = "yes", no: str = "no") -> Cell:
    return Cell(yes if passed else no, "yes" if passed else "no")


def _against(analysis: Analysis) -> Section | None:
    frame = analysis.against
    if frame is None:
        return None
    if frame.empty:
        return Section(
            "against", "Beside the paper", ("None of your cells is one of the paper's.",)
        )
    n_passed = int(frame["passed"].sum())
    rows = [
        [
            row.dataset, PROTOCOL_LABELS[row.protocol], row.backbone, whole(row.size),
            percent(row.acc), plus_minus(row.paper_acc, row.paper_std), difference(row.difference),
            _flag(row.within_spread), _flag(row.within_interval), percent(row.tolerance),
            _verdict(row.passed, "passed", "failed"), row.differs or MISSING,
        ]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    return Section(
        "against",
        "Beside the paper",
        (
            f"{n_passed} of {len(frame)} cells that you share with the paper pass at the stated "
            "tolerance (dotted; cells that fail are hollow). Beside it stands whether the "
            "difference lies within the paper's spread over seeds, and whether the paper's ACC "
            "lies in your 95 % interval over test images.",
        ),
        (charts.against_paper(frame),),
        (
            table(
                "Your ACC and the paper's, in percent",
                [
                    *_text("Dataset", "Protocol", "Backbone"),
                    *_numbers("Size (px)", "Yours", "Paper", "Difference"),
                    *_text("Within its spread", "Within your interval"),
                    *_numbers("Tolerance"),
                    *_text("Result", "Made otherwise than the paper's"),
                ],
                rows,
                folded=len(rows) > 40,
            ),
        ),
        ("against",),
    )


def _flag(value: Any) -> Cell:
    return Cell(MISSING) if pd.isna(value) else _verdict(bool(value))


def _newcomers(analysis: Analysis) -> Section | None:
    frame = analysis.newcomers
    if frame is None or frame.empty:
        return None
    rows = [
        [row.backbone, PROTOCOL_LABELS[row.protocol], whole(row.size), f"{row.rank:g} of {row.of}",
         whole(row.n_datasets)]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    return Section(
        "newcomers",
        "New backbones among the paper's",
        (
            "The rank that each backbone would take by its mean ACC among the paper's, over the "
            "datasets that you ran.",
        ),
        tables=(
            table(
                "Ranks of new backbones",
                [*_text("Backbone", "Protocol"), *_numbers("Size (px)", "Rank", "Datasets")],
                rows,
                folded=False,
            ),
        ),
        files=("newcomers",),
    )


def _benchmark(analysis: Analysis) -> Section | None:
    frame = analysis.benchmark
    names = sorted(frame["dataset"].unique(), key=lambda name: (name != AVERAGE, name))
    marks = best_and_second(frame, "acc_mean")
    marked = frame.assign(mark=marks)
    return Section(
        "benchmark",
        "Accuracy by image size",
        (
            "Mean ACC over seeds. The average is over datasets, and stands only where a backbone "
            "has all of them. Each panel has a scale of its own. A click on a name in the legend "
            "hides its line.",
        ),
        (charts.overview(frame),),
        tuple(_benchmark_table(marked, name) for name in names),
        ("benchmark", "overview"),
    )


def _benchmark_table(frame: pd.DataFrame, dataset: str) -> Table:
    """Return backbones × (protocol, size), as the paper prints them."""
    rows = frame[frame["dataset"] == dataset]
    settings = [
        (protocol, size)
        for protocol in order_protocols(frame["protocol"])
        for size in sorted(frame.loc[frame["protocol"] == protocol, "size"].unique())
    ]
    found = {
        (row.backbone, row.protocol, row.size): Cell(
            plus_minus(row.acc_mean, row.acc_std), row.mark
        )
        for row in rows.itertuples(index=False)
    }
    columns = [Column("Backbone")] + [
        Column(f"{size} px", numeric=True, group=PROTOCOL_LABELS[protocol])
        for protocol, size in settings
    ]
    body = [
        [label_of(name), *(found.get((name, *setting), Cell(MISSING)) for setting in settings)]
        for name in order_backbones(frame["backbone"])
    ]
    title = "Average over datasets" if dataset == AVERAGE else dataset
    return table(f"{title}: ACC in percent", columns, body, folded=dataset != AVERAGE)


def _ranking(analysis: Analysis) -> Section | None:
    frame = analysis.ranking
    if frame.empty:
        return None
    n_settings = {(row.protocol, str(row.size)): row.n_settings for row in
                  analysis.settings.itertuples(index=False)}  # fmt: skip
    ranks = sorted(frame["rank"].unique())
    rows = []
    for (protocol, size, name), counts in frame.groupby(
        ["protocol", "size", "backbone"], sort=False
    ):
        n = n_settings.get((protocol, str(size)), 0)
        by_rank = counts.set_index("rank")["count"]
        rows.append(
            [label_of(name), "all" if protocol == ALL else PROTOCOL_LABELS[protocol], str(size),
             *(Cell(whole(by_rank[rank]), level=by_rank[rank] / n if n else None)
               for rank in ranks), whole(n)]
        )  # fmt: skip
    columns = [
        *_text("Backbone", "Protocol"),
        *_numbers("Size (px)", *(f"Rank {rank}" for rank in ranks), "Settings"),
    ]
    return Section(
        "ranking",
        "Who ranks first",
        (
            "In every dataset, protocol and size that all backbones of the table have, they are "
            "ordered by mean ACC; equal ones stay in the paper's order. Counted is how often each "
            "takes each rank.",
        ),
        (charts.ranking(frame, analysis.settings),),
        (table("Counts of ranks", columns, rows),),
        ("ranking", "settings"),
    )


def _gains(analysis: Analysis) -> Section | None:
    frame = analysis.gains
    if frame.empty:
        return None
    steps = sorted(set(zip(frame["from_size"], frame["to_size"], strict=True)))
    protocols = order_protocols(frame["protocol"])
    found = {
        (row.backbone, row.protocol, row.from_size, row.to_size): Cell(
            f"{row.improved} of {row.n_datasets}", level=row.improved / row.n_datasets
        )
        for row in frame.itertuples(index=False)
    }
    columns = [Column("Backbone")] + [
        Column(f"{small} → {large}", numeric=True, group=PROTOCOL_LABELS[protocol])
        for protocol in protocols
        for small, large in steps
    ]
    body = [
        [
            label_of(name),
            *(
                found.get((name, protocol, *step), Cell(MISSING))
                for protocol in protocols
                for step in steps
            ),
        ]
        for name in order_backbones(frame["backbone"])
    ]
    return Section(
        "gains",
        "What a higher resolution brings",
        ("On how many datasets the mean ACC is strictly higher at the larger size.",),
        tables=(table("Datasets that gain, by step of image size", columns, body, folded=False),),
        files=("resolution_gains", "gains"),
    )


def _spread(analysis: Analysis) -> Section | None:
    frame = analysis.cells
    if frame.empty:
        return None
    rows = [
        [label_of(row.backbone), percent(row.p25), percent(row.p50), percent(row.p75)]
        for row in analysis.percentiles.itertuples(index=False)
    ]
    means = analysis.means
    n_datasets = len(means)
    tables = []
    if rows:
        tables = [
            table(
                f"Percentiles of ACC over {n_datasets} datasets",
                [*_text("Backbone"), *_numbers("25th", "50th (median)", "75th")],
                rows,
                folded=False,
            ),
            _means_table(means),
        ]
    return Section(
        "percentiles",
        "Spread over datasets",
        (
            "Boxes from the 25th to the 75th percentile over datasets with the median, whiskers to "
            "the last value within 1.5 box lengths, all others as points.",
            "The percentile table is of each dataset's ACC averaged over protocols and sizes that "
            "all backbones have (numpy's linear rule).",
        ),
        (charts.boxes(frame),),
        tuple(tables),
        ("percentiles", "boxplots", "boxes"),
    )


def _means_table(means: pd.DataFrame) -> Table:
    return table(
        "The numbers behind it: ACC per dataset, averaged over protocols and sizes",
        [*_text("Dataset"), *_numbers(*(label_of(name) for name in means.columns))],
        [[str(name), *(percent(value) for value in values)] for name, values in
         zip(means.index, means.to_numpy(dtype=float), strict=True)],
    )  # fmt: skip


def _pairwise(analysis: Analysis) -> Section | None:
    frame = analysis.pairwise
    if frame.empty:
        return None
    rows = [
        [label_of(row.backbone_a), label_of(row.backbone_b), significant(row.p_value),
         significant(row.threshold), _verdict(row.significant),
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
        (charts.pairwise(frame),),
        (
            table(
                "p value of every pair",
                [
                    *_text("Backbone", "Against"),
                    *_numbers("p", "Threshold"),
                    *_text("Significant", "Higher mean"),
                ],
                rows,
            ),
        ),
        ("pairwise",),
    )


def _comparisons(analysis: Analysis) -> Section | None:
    frame = analysis.comparisons
    if frame.empty:
        return None
    rows = [
        [label_of(row.backbone_a), label_of(row.backbone_b), whole(row.n_datasets),
         difference(row.mean_difference), difference(row.effect_size), significant(row.p_value),
         significant(row.p_holm), _verdict(row.significant_holm)]
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
                    *_text("Backbone", "Against"),
                    *_numbers("Datasets", "Mean difference", "Effect size", "p", "p (Holm)"),
                    *_text("Significant"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("comparisons",),
    )


def _friedman(analysis: Analysis) -> Section | None:
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
        (charts.mean_ranks(result),),
        (
            table("Mean ranks", [*_text("Backbone"), *_numbers("Mean rank")], rows),
            table(
                "Groups within which no two differ significantly",
                _text("Group", "Backbones"),
                [[f"{i}", group] for i, group in enumerate(groups, 1)],
            ),
        ),
        ("friedman", "nemenyi", "critical_difference"),
    )


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


def _intervals(analysis: Analysis) -> Section | None:
    frame = analysis.intervals
    if frame.empty:
        return None
    tables = []
    for over, (title, method) in _OVER.items():
        rows = frame[frame["over"] == over]
        if len(rows):
            tables.append(_interval_table(rows, f"{title} ({method})", over))
    over_datasets = frame[(frame["over"] == "datasets") & frame["low"].notna()]
    drawn = (charts.dataset_intervals(over_datasets),) if len(over_datasets) else ()
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
        *_text("Backbone", *datasets, "Protocol"),
        *_numbers("Size (px)", "Mean ACC", "95 % interval", counted),
    ]
    return table(caption, columns, rows)


def _paired(analysis: Analysis) -> Section | None:
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
                    *_text("Dataset", "Protocol"),
                    *_numbers("Size (px)"),
                    *_text("Best", "Second"),
                    *_numbers("Difference", "95 % interval", "p", "Images", "Seeds"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("paired",),
    )


def _costs(analysis: Analysis) -> Section | None:
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
        (charts.pareto(frame),),
        (
            table(
                "ACC and cost, cheapest first",
                [
                    *_text("Backbone", "Protocol"),
                    *_numbers("Size (px)", "ACC (%)", "Device time", "Datasets"),
                    *_text("On the front"),
                ],
                rows,
            ),
        ),
        ("costs", "cost", "pareto"),
    )


def _front(on_it: bool) -> Cell:
    return _verdict(True) if on_it else Cell("no")


def _transfers(analysis: Analysis) -> Section | None:
    results = analysis.transfers
    if not results:
        return None
    rows = [
        [charts.transfer_label(result), percent(result.rho),
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
        (charts.transfers(results),),
        (
            table(
                "Rank correlation and regret",
                [
                    *_text("Pair"),
                    *_numbers("ρ", "95 % interval", "Regret", "Datasets", "Backbones"),
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
        f"Ranks: {charts.transfer_label(result)}",
        [*_text("Dataset"), *_numbers(*(label_of(name) for name in names))],
        [[str(dataset), *(row[name] for name in names)] for dataset, row in ranks.iterrows()],
    )


def _unlike(analysis: Analysis, links: PageLinks) -> Section | None:
    frame = analysis.unlike
    if frame.empty:
        return None
    rows = [
        [row.reason, row.dataset, PROTOCOL_LABELS[row.protocol], row.backbone, whole(row.size),
         percent(row.acc_mean), whole(row.n_seeds),
         Cell("", runs=tuple((Path(run).name, links.of(run)) for run in row.runs))]
        for row in frame.itertuples(index=False)
    ]  # fmt: skip
    return Section(
        "unlike",
        "Left out: made under other conditions",
        (
            "These cells stand in no other table, since their numbers are not comparable with the "
            "others. unlike.csv has all of their conditions.",
        ),
        tables=(
            table(
                "Cells left out, and why",
                [
                    *_text("Reason", "Dataset", "Protocol", "Backbone"),
                    *_numbers("Size (px)", "ACC (%)", "Seeds"),
                    *_text("Runs"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("unlike",),
    )
