"""The sections that show results: by size, ranks, gains, spread, beside the paper, left out."""

from __future__ import annotations

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
    percent,
    plus_minus,
    whole,
)
from medplus.reporting.page.parts import (
    Cell,
    Column,
    Section,
    Table,
    number_columns,
    table,
    text_columns,
    verdict,
)
from medplus.reporting.palette import PROTOCOL_LABELS, label_of


def against_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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
            verdict(row.passed, "passed", "failed"), row.differs or MISSING,
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
                    *text_columns("Dataset", "Protocol", "Backbone"),
                    *number_columns("Size (px)", "Yours", "Paper", "Difference"),
                    *text_columns("Within its spread", "Within your interval"),
                    *number_columns("Tolerance"),
                    *text_columns("Result", "Made otherwise than the paper's"),
                ],
                rows,
                folded=len(rows) > 40,
            ),
        ),
        ("against",),
    )


def _flag(value: Any) -> Cell:
    return Cell(MISSING) if pd.isna(value) else verdict(bool(value))


def newcomers_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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
                [
                    *text_columns("Backbone", "Protocol"),
                    *number_columns("Size (px)", "Rank", "Datasets"),
                ],
                rows,
                folded=False,
            ),
        ),
        files=("newcomers",),
    )


def benchmark_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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


def ranking_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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
        *text_columns("Backbone", "Protocol"),
        *number_columns("Size (px)", *(f"Rank {rank}" for rank in ranks), "Settings"),
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


def gains_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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


def spread_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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
                [*text_columns("Backbone"), *number_columns("25th", "50th (median)", "75th")],
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
        [*text_columns("Dataset"), *number_columns(*(label_of(name) for name in means.columns))],
        [[str(name), *(percent(value) for value in values)] for name, values in
         zip(means.index, means.to_numpy(dtype=float), strict=True)],
    )  # fmt: skip


def datasets_section(analysis: Analysis) -> Section | None:
    """Return the section, or None where there is nothing to say."""
    frame = analysis.datasets
    if frame.empty:
        return None
    rows = [[text or MISSING for text in row] for row in frame.itertuples(index=False)]
    columns = text_columns("Dataset", "Data", "Licence", "Citation")
    return Section(
        "datasets",
        "Data, licences and citations",
        ("What the owners of the data ask for; each MedMNIST collection also has a source of its "
         "own, which medmnist.com names.",),
        tables=(table("Whose data the numbers were made on", columns, rows, folded=False),),
        files=("datasets",),
    )  # fmt: skip


def unlike_section(analysis: Analysis, links: PageLinks) -> Section | None:
    """Return the section, or None where there is nothing to say."""
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
                    *text_columns("Reason", "Dataset", "Protocol", "Backbone"),
                    *number_columns("Size (px)", "ACC (%)", "Seeds"),
                    *text_columns("Runs"),
                ],
                rows,
                folded=len(rows) > 15,
            ),
        ),
        files=("unlike",),
    )
