"""Accuracy by image size: the benchmark itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, Look, label_of
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Key, Sheet
from medplus.analysis.drawing.style import short_names, signs
from medplus.analysis.format import MISSING, first_upper, percent
from medplus.analysis.results.cells import (
    AVERAGE,
    COLUMNS,
    Extent,
    order_protocols,
)
from medplus.analysis.results.contenders import AXES
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Block, Cell, Column, Mark, Table, cross_block
from medplus.naming import counted

SCORE_NAMES = {"acc": "ACC", "auc": "AUC"}

_TOP, _LEFT, _BELOW, _GAP = 7.0, 13.0, 12.0, 9.0
_HIGH, _LOW, _WIDEST = 72.0, 50.0, 85.0


def accuracy(benchmark: Benchmark) -> Section:
    """Return all results, and their means over datasets."""
    averages, cells = benchmark.averages, benchmark.cells
    columns = [*COLUMNS, *(AXES if "weights" in cells else ())]
    drawn = averages[averages["dataset"] == AVERAGE].dropna(subset="acc_mean")
    if benchmark.n_datasets == 1 and "acc_low" in cells:
        drawn = cells.dropna(subset="acc_mean")
    shown = averages
    if benchmark.n_datasets == 1:
        shown = averages[averages["dataset"] != AVERAGE]  # it would say everything twice
    figure = Figure(
        "fig1_overview",
        "Lines: mean ACC over datasets by image size, one panel per protocol, one line per "
        "backbone.",
        partial(_draw, drawn, cells),
    )
    return Section(
        name="accuracy",
        title="Accuracy by image size",
        short="Accuracy by size",
        text="Means over seeds. The average is over datasets, and stands only where a backbone has "
        "all of them. Each panel has a scale of its own."
        + (" Bars: 95 % intervals over test images." if "acc_low" in drawn else ""),
        tables=(
            Table.of(
                "benchmark",
                "",
                _named(averages, cells),
                " ".join(columns),
                blocks=list(_blocks(shown)),
            ),
        ),
        # Of one size alone the intervals are drawn, which say more.
        figures=(figure,)
        if len(drawn) and (drawn["size"].nunique() > 1 or benchmark.n_datasets > 1)
        else (),
        sentences=tuple(best_averages(averages)),
        notes=tuple(_notes(benchmark)),
    )


def _named(averages: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the same under the backbones' own names, with what tells them apart beside them."""
    if "weights" not in cells:
        return averages
    of_backbone = cells.drop_duplicates("backbone").set_index("backbone")
    return averages.assign(
        backbone=averages["backbone"].map(of_backbone["network"]),
        **{name: averages["backbone"].map(of_backbone[name]) for name in AXES},
    )


def _notes(benchmark: Benchmark) -> Iterator[str]:
    cells, total = benchmark.cells, benchmark.n_datasets
    sizes = cells.groupby("protocol")["size"].nunique().sum()
    wanted = total * cells["backbone"].nunique() * sizes
    if len(cells) < wanted:
        yield (
            f"{wanted - len(cells)} of {wanted} cells of the grid have no runs; they are shown as "
            "missing, and rankings and tests are over what all backbones have."
        )
    over = cells.groupby(["protocol", "size"])["dataset"].nunique()
    if (fewer := over[over < total]).any():
        places = (f"{PROTOCOL_LABELS[name]} {size} px ({n})" for (name, size), n in fewer.items())
        yield (
            f"Averages over fewer than all {total} datasets, not to be compared with others: "
            f"{', '.join(places)}."
        )
    trained = cells[cells["protocol"] != "knn"]
    single = int((trained["n_seeds"] == 1).sum())
    if single and not benchmark.baseline:
        yield (
            f"{single} of {len(trained)} cells of trained protocols are of one seed only: they "
            "have no standard deviation, and what another seed would give is not known."
        )
    if benchmark.skipped:
        yield f"{counted(len(benchmark.skipped), 'record')} could not be read: left out."


def best_averages(benchmark: pd.DataFrame) -> Iterator[str]:
    """Yield the backbone and size of the highest mean ACC of each protocol.

    Sizes that were run on other datasets have means that cannot be compared, so that only those
    with the most datasets are told of.
    """
    averages = benchmark[benchmark["dataset"] == AVERAGE].dropna(subset=["acc_mean"])
    single = benchmark[benchmark["dataset"] != AVERAGE]
    datasets = {key: set(rows["dataset"]) for key, rows in single.groupby(["protocol", "size"])}
    for protocol in order_protocols(averages["protocol"]):
        rows = averages[averages["protocol"] == protocol]
        most = max((datasets[protocol, size] for size in rows["size"].unique()), key=len)
        rows = rows[rows["size"].map(lambda size: datasets[protocol, size] == most)]  # noqa: B023
        over = f"over {len(most)} datasets" if len(most) > 1 else f"on {next(iter(most))}"
        means = settle(rows["acc_mean"])
        tied = rows[means == means.max()]
        best = tied.iloc[0]
        names = " and ".join(
            f"{label_of(one.backbone)} at {one.size} px" for one in tied.itertuples()
        )
        has = "has" if len(tied) == 1 else "have"
        plain = len(tied) > 1 or pd.isna(best["auc_mean"])
        auc = "" if plain else f" (AUC {percent(best['auc_mean'])} %)"
        yield (
            f"{first_upper(PROTOCOL_LABELS[protocol])}: {names} {has} the highest mean ACC "
            f"{over}, {percent(best['acc_mean'])} %{auc}."
        )


def best_and_second(cells: pd.DataFrame, score: str) -> list[Mark]:
    """Return which cells are best, and which second, of their dataset, protocol and size.

    Numbers that are printed alike are equally good, so that several may be best; second best is
    the next lower number. A cell without a rival is not marked.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`; averages may be among them.
    score : str
        A column, as ``acc_mean``.
    """
    printed = cells[score].map(lambda value: float(percent(value) or "nan"))
    groups = printed.groupby([cells[key] for key in ("dataset", "protocol", "size")])
    places = groups.rank(method="dense", ascending=False)
    rivals = groups.transform("count") > 1
    marks: dict[float, Mark] = {1: "best", 2: "second"}
    return [
        marks.get(place, "") if rival else "" for place, rival in zip(places, rivals, strict=True)
    ]


def _blocks(benchmark: pd.DataFrame) -> Iterator[Block]:
    """Yield a block for the average, as far as there is one, and one per dataset."""
    marks = {score: best_and_second(benchmark, f"{score}_mean") for score in SCORE_NAMES}
    marked = benchmark.assign(**{f"{score}_mark": marks[score] for score in SCORE_NAMES})
    n_datasets = len(set(benchmark["dataset"]) - {AVERAGE})
    average = marked["dataset"] == AVERAGE
    ordered = pd.concat([marked[average], marked[~average]])
    for dataset, rows in ordered.groupby("dataset", sort=False):
        over = f" over {n_datasets} datasets" if dataset == AVERAGE else ""
        yield _block(f"{dataset}{over}", rows)


def _block(title: str, rows: pd.DataFrame) -> Block:
    """Set sizes beside each other, best in bold and second underlined, as the paper does."""
    scores = [score for score in SCORE_NAMES if rows[f"{score}_mean"].notna().any()]
    cells = {
        ((row["protocol"], row["backbone"]), (score, row["size"])): _score(row, score)
        for row in rows.to_dict("records")
        for score in scores
    }
    columns = {
        (score, size): Column(str(size), numeric=True, group=SCORE_NAMES[score])
        for score in scores
        for size in sorted(set(rows["size"]))
    }
    told = " and ".join(SCORE_NAMES[score] for score in scores)
    caption = f"{title}: {told} in percent by image size, mean ± standard deviation over seeds"
    return cross_block(caption, "protocol backbone", columns, cells, grouped=True)


def _score(row: Mapping[Any, Any], score: str) -> Cell:
    mean, std = (percent(row[f"{score}_{part}"]) for part in ("mean", "std"))
    text = f"{mean} ± {std}" if mean and std else mean or MISSING
    return Cell(text, row[f"{score}_mark"])


def _draw(rows: pd.DataFrame, cells: pd.DataFrame) -> Drawing:
    """Draw a panel per protocol and in it a line per backbone; of one dataset, with intervals."""
    extent, drawn = Extent.of(rows), signs(cells["backbone"])
    names, several = short_names(extent.backbones), len(extent.sizes) > 1
    height = _HIGH if several else _LOW
    below, key = _TOP + height + _BELOW, Key(names, drawn, line=several)
    sheet = Sheet(WIDE, below + key.height + MARGIN)
    n_panels = len(extent.protocols)
    width = min(_WIDEST, (WIDE - _LEFT - MARGIN - (n_panels - 1) * _GAP) / n_panels)
    panels = sheet.panels(n_panels, _LEFT, _TOP, width, height, _GAP)
    for axes, protocol in zip(panels, extent.protocols, strict=True):
        _draw_panel(axes, rows[rows["protocol"] == protocol], extent, drawn, names)
        axes.set_title(f"{PROTOCOL_LABELS[protocol]}, {_n_datasets(cells, protocol)}")
    panels[0].set_ylabel(f"mean ACC, %{' (scales differ)' if n_panels > 1 else ''}")
    key.put(sheet, below)
    return sheet.figure


def _draw_panel(
    axes: Axes,
    rows: pd.DataFrame,
    extent: Extent,
    drawn: Mapping[str, Look],
    names: Mapping[str, str],
) -> None:
    backbones, sizes = extent.backbones, extent.sizes
    shifts = _apart(len(backbones), len(sizes), "acc_low" in rows)
    for backbone, shift in zip(backbones, shifts, strict=True):
        of_it = rows[rows["backbone"] == backbone].set_index("size").reindex(sizes)
        places = np.arange(len(sizes)) + shift
        if "acc_low" in of_it:
            axes.vlines(
                places, of_it["acc_low"], of_it["acc_high"], color=drawn[backbone].colour, lw=0.8
            )
        axes.plot(
            places,
            of_it["acc_mean"].to_numpy(),
            label=names[backbone],
            linestyle=drawn[backbone].line,
            **drawn[backbone].style(),
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.3 if len(sizes) > 1 else -0.5, len(sizes) - (0.7 if len(sizes) > 1 else 0.5))
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.set_xlabel("image size, px")
    axes.grid(axis="y")


def _apart(n_backbones: int, n_sizes: int, bars: bool) -> list[float]:
    """Return how far signs are moved aside: at one size, and with bars, they would hide others."""
    if n_backbones == 1 or (n_sizes > 1 and not bars):
        return [0.0] * n_backbones
    most = 0.35 if n_sizes == 1 else 0.15
    return [float(shift) for shift in np.linspace(-most, most, n_backbones)]


def _n_datasets(cells: pd.DataFrame, protocol: str) -> str:
    """Say over how many datasets the panel's means are; sizes may have different numbers."""
    rows = cells[cells["protocol"] == protocol]
    counts = rows.groupby("size")["dataset"].nunique()
    low, high = counts.min(), counts.max()
    return f"{'' if low == high else f'{low} to '}{counted(int(high), 'dataset')}"
