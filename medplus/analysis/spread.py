"""How accuracy spreads over datasets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.rows import Rows
from medplus.analysis.drawing.style import GREY, INK
from medplus.analysis.format import percent, read_percent
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table, dataset_block

_PERCENTILES = (25, 50, 75)


def spread(benchmark: Benchmark) -> Section | None:
    """Return the spread over datasets; None for fewer than three of them or two backbones."""
    if not benchmark.supports(3, 2):
        return None
    means = _long(benchmark.means)
    each = "ACC per dataset in percent, averaged over protocols and sizes"
    return Section(
        name="spread",
        title="Spread over datasets",
        short="Spread",
        text="Boxes from the 25th to the 75th percentile over datasets with the median, whiskers "
        "to the last value within 1.5 box lengths, all others as points.\n\n"
        "The percentile table is of each dataset's ACC averaged over protocols and sizes that all "
        "backbones have (numpy's linear rule).",
        tables=(
            Table.of(
                "percentiles",
                "Percentiles over datasets of ACC in percent, averaged over protocols and sizes",
                percentiles(benchmark.means),
                "backbone p25 p50 p75",
            ),
            Table.of(
                "means",
                each,
                means,
                "dataset backbone acc_mean",
                blocks=[dataset_block(each, means, means["acc_mean"].map(percent))],
            ),
        ),
        figures=(
            Figure(
                "fig4_boxes",
                "Box plots: the spread of ACC over datasets by backbone and image size.",
                partial(_draw, benchmark.compared.dropna(subset="acc_mean")),
            ),
        ),
    )


def percentiles(means: pd.DataFrame) -> pd.DataFrame:
    """Return the quartiles over datasets, by numpy's linear interpolation as in the paper.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.analysis.results.averages.dataset_means`.

    Returns
    -------
    pandas.DataFrame
        Columns backbone, p25, p50, p75; NaN where there is no dataset.
    """
    names = [f"p{percent}" for percent in _PERCENTILES]
    quartiles = (
        np.percentile(means.to_numpy(), _PERCENTILES, axis=0)
        if len(means)
        else np.full((len(names), means.shape[1]), np.nan)
    )
    table = pd.DataFrame(quartiles.T, columns=names)
    table.insert(0, "backbone", list(means.columns))
    return table


def _long(means: pd.DataFrame) -> pd.DataFrame:
    return (
        means.rename_axis(index="dataset")
        .melt(var_name="backbone", value_name="acc_mean", ignore_index=False)
        .reset_index()
    )


def _draw(cells: pd.DataFrame) -> Drawing:
    """Draw Tukey's boxes over datasets by protocol, backbone and size."""
    rows = Rows(cells, cells["backbone"], "ACC, %")
    found = dict(iter(cells.groupby(["protocol", "backbone", "size"])["acc_mean"]))
    for protocol, axes in rows.panels():
        there = [one for one in rows.places() if (protocol, one.backbone, one.size) in found]
        boxes = [
            boxplot_stats(found[protocol, one.backbone, one.size].to_numpy())[0] for one in there
        ]
        low, q1, median, q3, high = (
            np.array([box[part] for box in boxes])
            for part in ("whislo", "q1", "med", "q3", "whishi")
        )
        middles, half = np.array([one.middle for one in there]), rows.height * 0.375
        axes.hlines([*middles, *middles], [*low, *q3], [*q1, *high], color=GREY, lw=0.6)
        axes.barh(
            middles,
            q3 - q1,
            2 * half,
            q1,
            color=[one.colour for one in there],
            edgecolor=INK,
            lw=0.4,
            label=[
                f"{one.label}: median {read_percent(value)}"
                for one, value in zip(there, median, strict=True)
            ],
        )
        axes.vlines(median, middles - half, middles + half, color=INK, lw=0.9)
        beyond = [
            (acc, middle)
            for middle, box in zip(middles, boxes, strict=True)
            for acc in box["fliers"]
        ]
        axes.plot(*np.reshape(beyond, (-1, 2)).T, ".", ms=2.2, color=GREY)
        axes.set_xlim(max(0.0, cells["acc_mean"].min() - 4.0), 102.0)
    return rows.figure
