"""The sections that show results: by size, ranks, gains, spread, beside the paper, left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, AVERAGE, order_backbones
from medplus.reporting.page.columns import BACKBONE, DATASET, NAME, PROTOCOL, SIZE
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.parts import Section, verdict
from medplus.reporting.palette import PROTOCOL_LABELS, label_of
from medplus.reporting.series import Extent, best_and_second, gains_by_step, ranks_by_setting
from medplus.reporting.table import Block, Cell, Column, cross_block, list_block, number


def against_section(frame: pd.DataFrame) -> Section:
    """Return the cells beside the paper's."""
    title = "Beside the paper"
    if frame.empty:
        return Section("against", title, title, "None of your cells is one of the paper's.")
    columns = [
        DATASET, PROTOCOL, NAME, SIZE, number("Yours", "acc", fmt.read_percent),
        number("Paper", "paper_acc paper_std", fmt.plus_minus),
        number("Difference", "difference", fmt.difference),
        Column("Within its spread", "within_spread", _flag),
        Column("Within your interval", "within_interval", _flag),
        number("Tolerance", "tolerance", fmt.read_percent),
        Column("Result", "passed", lambda passed: verdict(passed, "passed", "failed")),
        Column("Made otherwise than the paper's", "differs", _or_missing),
    ]  # fmt: skip
    caption = "Your ACC and the paper's, in percent"
    return Section(
        "against",
        title,
        title,
        f"{int(frame['passed'].sum())} of {len(frame)} cells that you share with the paper "
        "pass at the stated "
        "tolerance (dotted; cells that fail are hollow). Beside it stands whether the "
        "difference lies within the paper's spread over seeds, and whether the paper's ACC "
        "lies in your 95 % interval over test images.",
        (list_block(caption, frame, columns, folded=len(frame) > 40),),
        ("fig11_against",),
    )


def _flag(value: Any) -> Cell:
    return Cell(fmt.MISSING) if pd.isna(value) else verdict(bool(value))


def _or_missing(text: str) -> str:
    return text or fmt.MISSING


def newcomers_section(analysis: Analysis) -> Section:
    """Return the ranks of new backbones."""
    columns = [
        NAME, PROTOCOL, SIZE, number("Rank", "rank of", "{:g} of {}".format),
        number("Datasets", "n_datasets"),
    ]  # fmt: skip
    table = list_block("Ranks of new backbones", analysis.newcomers, columns, folded=False)
    return Section(
        "newcomers",
        "New backbones",
        "New backbones among the paper's",
        "The rank that each backbone would take by its mean ACC among the paper's, over the "
        "datasets that you ran.",
        tables=(table,),
    )


def benchmark_section(analysis: Analysis) -> Section:
    """Return the benchmark by size."""
    frame = analysis.benchmark
    marked = frame.assign(mark=best_and_second(frame, "acc_mean"))
    names = sorted(set(frame["dataset"]), key=lambda name: (name != AVERAGE, name))
    return Section(
        "benchmark",
        "Accuracy by size",
        "Accuracy by image size",
        "Mean ACC over seeds. The average is over datasets, and stands only where a backbone "
        "has all of them. Each panel has a scale of its own.",
        tuple(_benchmark_table(marked, name) for name in names),
        ("fig1_overview", "fig9_datasets"),
    )


def _benchmark_table(frame: pd.DataFrame, dataset: str) -> Block:
    """Return backbones × (protocol, size)."""
    extent = Extent.of(frame)
    present = set(zip(frame["protocol"], frame["size"], strict=True))
    columns = {
        (protocol, size): Column(f"{size} px", numeric=True, group=PROTOCOL_LABELS[protocol])
        for protocol in extent.protocols
        for size in extent.sizes
        if (protocol, size) in present
    }
    cells = {
        (row.backbone, (row.protocol, row.size)): Cell(
            fmt.plus_minus(row.acc_mean, row.acc_std), row.mark
        )
        for row in frame[frame["dataset"] == dataset].itertuples()
    }
    title = "Average over datasets" if dataset == AVERAGE else dataset
    caption, folded = f"{title}: ACC in percent", dataset != AVERAGE
    return _by_backbone(caption, extent.backbones, columns, cells, folded)


def _by_backbone(
    caption: str,
    backbones: list[str],
    columns: dict[Any, Column],
    cells: dict[Any, Cell],
    folded: bool,
) -> Block:
    names = {name: (label_of(name),) for name in backbones}
    return cross_block(caption, [BACKBONE], names, columns, cells, folded=folded)


def ranking_section(analysis: Analysis) -> Section:
    """Return the counts of ranks."""
    frame = analysis.ranking
    ranks = sorted(set(frame["rank"]))
    names, cells = {}, {}
    for (protocol, size), (n, counts) in ranks_by_setting(frame).items():
        for backbone, of_it in counts.iterrows():
            row = (protocol, size, backbone)
            of = "all" if protocol == ALL else PROTOCOL_LABELS[protocol]
            names[row] = (label_of(str(backbone)), of, str(size))
            cells[row, None] = Cell(fmt.whole(n))
            for rank, count in of_it.items():
                cells[row, rank] = Cell(fmt.whole(count), level=count / n if n else None)
    columns = {rank: number(f"Rank {rank}") for rank in ranks} | {None: number("Settings")}
    return Section(
        "ranking",
        "Ranking",
        "Who ranks first",
        "In every dataset, protocol and size that all backbones of the table have, they are "
        "ordered by mean ACC; equal ones stay in the paper's order. Counted is how often each "
        "takes each rank.",
        (cross_block("Counts of ranks", (BACKBONE, PROTOCOL, SIZE), names, columns, cells),),
        ("settings", "fig2_ranking"),
    )


def gains_section(analysis: Analysis) -> Section:
    """Return what larger sizes bring."""
    found = gains_by_step(analysis.gains)
    cells = {
        (backbone, (protocol, step)): Cell(f"{improved} of {n}", level=improved / n)
        for (protocol, backbone, step), (improved, n) in found.items()
    }
    columns = {
        (protocol, (small, large)): Column(
            f"{small} → {large}", numeric=True, group=PROTOCOL_LABELS[protocol]
        )
        for protocol in dict.fromkeys(protocol for protocol, _, _ in found)
        for small, large in sorted({step for _, _, step in found})
    }
    title = "Datasets that gain, by step of image size"
    backbones = order_backbones(analysis.gains["backbone"])
    return Section(
        "gains",
        "Resolution gains",
        "What a higher resolution brings",
        "On how many datasets the mean ACC is strictly higher at the larger size.",
        tables=(_by_backbone(title, backbones, columns, cells, folded=False),),
        files=("resolution_gains", "fig3_gains"),
    )


def spread_section(analysis: Analysis) -> Section:
    """Return the spread over datasets."""
    means = analysis.means
    columns = [
        BACKBONE, number("25th", "p25", fmt.read_percent),
        number("50th (median)", "p50", fmt.read_percent), number("75th", "p75", fmt.read_percent),
    ]  # fmt: skip
    title = f"Percentiles of ACC over {len(means)} datasets"
    behind = cross_block(
        "The numbers behind it: ACC per dataset, averaged over protocols and sizes",
        [DATASET],
        {name: (str(name),) for name in means.index},
        {name: number(label_of(name)) for name in means.columns},
        {key: fmt.read_percent(value) for key, value in means.stack(future_stack=True).items()},
    )
    return Section(
        "percentiles",
        "Spread",
        "Spread over datasets",
        "Boxes from the 25th to the 75th percentile over datasets with the median, whiskers to "
        "the last value within 1.5 box lengths, all others as points.\n\n"
        "The percentile table is of each dataset's ACC averaged over protocols and sizes that "
        "all backbones have (numpy's linear rule).",
        (list_block(title, analysis.percentiles, columns, folded=False), behind),
        ("fig4_boxes",),
    )


def datasets_section(analysis: Analysis) -> Section:
    """Return whose data the numbers were made on."""
    frame = analysis.datasets
    columns = [Column(name.capitalize(), name, _or_missing) for name in frame.columns]
    title = "Whose data the numbers were made on"
    return Section(
        "datasets",
        "Data",
        "Data, licences and citations",
        "What the owners of the data ask for; each MedMNIST collection also has a source of its "
        "own, which medmnist.com names.",
        tables=(list_block(title, frame, columns, folded=False),),
    )  # fmt: skip


def unlike_section(frame: pd.DataFrame, links: PageLinks) -> Section:
    """Return what was left out."""

    def linked(runs: tuple[str, ...]) -> Cell:
        return Cell("", runs=tuple((Path(run).name, links.of(run)) for run in runs))

    columns = [
        Column("Reason", "reason"), DATASET, PROTOCOL, NAME, SIZE,
        number("ACC (%)", "acc_mean", fmt.read_percent), number("Seeds", "n_seeds"),
        Column("Runs", "runs", linked),
    ]  # fmt: skip
    return Section(
        "unlike",
        "Left out",
        "Left out: made under other conditions",
        "These cells stand in no other table, since their numbers are not comparable with the "
        "others. unlike.csv has all of their conditions.",
        tables=(list_block("Cells left out, and why", frame, columns, folded=len(frame) > 15),),
    )
