"""Three different uncertainties of a score: over seeds, over datasets, over test samples.

They answer different questions: what another seed, another choice of datasets, or other images of
the same kind would change. None contains another, so they are never added up; the column `over`
says which one an interval tells of. All are of 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.rows import Rows
from medplus.analysis.format import interval, read_percent
from medplus.analysis.results.averages import mean_over_datasets, on_all_datasets
from medplus.analysis.results.cells import AVERAGE, KEYS, sort_cells
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table
from medplus.errors import MedplusError
from medplus.metrics import check, known_to_undercover
from medplus.metrics.intervals import student_half
from medplus.run.ledger import read_predictions, read_record

SEEDS, DATASETS, SAMPLES = "seeds", "datasets", "test samples"
"""The values of the column `over`."""

MIN_DATASETS = 3
"""Fewer have no interval worth the name: with two it is 18 times as wide as their distance."""

_OVER = {
    SEEDS: "what another seed would change (Student's t interval of the mean over seeds)",
    DATASETS: "what another choice of datasets would change (Student's t interval of the mean)",
    SAMPLES: "what other images of the same kind would change (Wilson's interval, "
    "over patients where they are known)",
}

_VALUES = ["over", "mean", "low", "high", "n"]
_GROUP = ["protocol", "backbone", "size"]


def intervals(benchmark: Benchmark) -> Section | None:
    """Return how certain the means are; None where there is no interval at all."""
    seeds = [] if benchmark.runs is None else [over_seeds(benchmark.runs)]
    parts = [*seeds, over_datasets(benchmark.cells), over_samples(benchmark.cells)]
    parts = [part for part in (one.dropna(subset="low") for one in parts) if len(part)]
    if not parts:
        return None
    frame = pd.concat(parts)
    columns = "protocol backbone size mean low high n"
    of_images = ["dataset"] if benchmark.n_datasets > 1 else []
    blocks = []
    for over, rows in frame.groupby("over", sort=False):
        named = [*(of_images if over != DATASETS else []), *columns.split()]
        shown = Table.of("", f"Over {over}: {_OVER[str(over)]}", rows, " ".join(named))
        blocks += list(shown.blocks)
    of_figure = DATASETS if benchmark.n_datasets > 1 else SAMPLES
    drawn = frame[frame["over"] == of_figure]
    return Section(
        name="intervals",
        title="How certain the means are: three uncertainties, kept apart",
        short="Intervals",
        text="An interval over seeds, one over datasets and one over test images answer three "
        "different questions; none contains another, and they must not be mixed. All are of 95 %. "
        f"The figure shows those over {of_figure}.",
        tables=(Table.of("intervals", "", frame, f"over dataset {columns}", blocks=blocks),),
        figures=(
            Figure(
                "fig10_intervals",
                f"Bars: ACC and its 95 % interval over {of_figure}.",
                partial(_draw, drawn, benchmark.backbones),
            ),
        )
        if len(drawn)
        else (),
        notes=tuple(_doubtful(benchmark)),
    )


def _doubtful(benchmark: Benchmark) -> Iterator[str]:
    """Yield the datasets of which the interval of the AUC is known to promise too much."""
    if benchmark.runs is None:
        return
    for dataset, rows in benchmark.runs.groupby("dataset", sort=True):
        run = rows.iloc[0]
        try:
            saved, record = read_predictions(Path(run["run"])), read_record(Path(run["run"]))
            cases = check(saved["test_true"], saved["test_score"], run["task"])
        except (MedplusError, KeyError, ValueError):
            continue
        if said := known_to_undercover(cases, saved.get("test_group"), record.classes):
            yield f"{dataset}: {said}; see docs/statistics.md."


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what another seed may change of a cell's mean ACC: Student's t interval.

    There are three seeds as a rule, from which a bootstrap can draw 27 samples, one in nine of
    them a single seed thrice: its interval is the range of the values, and too narrow.
    Student's t takes the scores of seeds as normal instead, and pays for a variance that is
    estimated from so few with a wide interval (4.3 standard errors for three seeds).

    Parameters
    ----------
    runs : pandas.DataFrame
        Columns dataset, protocol, backbone, size, seed, acc (percent).

    Returns
    -------
    pandas.DataFrame
        Columns dataset, protocol, backbone, size, over, mean, low, high, n (runs); low and high
        are NaN for one run alone.
    """
    scored = sort_cells(runs.dropna(subset="acc"))
    halves = {"mean": "mean", "half": lambda acc: float(student_half(acc)), "n": "count"}
    cells = scored.groupby(KEYS)["acc"].agg(**halves).reset_index()
    low, high = cells["mean"] - cells["half"], cells["mean"] + cells["half"]
    return sort_cells(cells.assign(over=SEEDS, low=low, high=high)[[*KEYS, *_VALUES]])


def over_datasets(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what another choice of datasets may change of a mean ACC: Student's t interval.

    The means are those of `medplus.analysis.results.averages.with_averages`: per protocol and
    size over all datasets that the table has there, for the backbones that have all of them.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, backbone, size, over, mean, low, high, n (datasets); low and high are NaN
        for fewer than `MIN_DATASETS`. Means that lack a dataset's ACC are left out.
    """
    parts = []
    for (protocol, size), block in on_all_datasets(cells).groupby(["protocol", "size"]):
        acc = block.pivot(index="dataset", columns="backbone", values="acc_mean")
        acc = acc.dropna(axis="columns")
        means = [mean_over_datasets(of_backbone) for _, of_backbone in acc.items()]
        low, high = mean_interval(acc.to_numpy(dtype=np.float64))
        low, high = np.maximum(low, 0.0), np.minimum(high, 100.0)
        values = {"over": DATASETS, "mean": means, "low": low, "high": high, "n": len(acc)}
        part = pd.DataFrame(values, index=acc.columns).reset_index()
        parts.append(part.assign(protocol=protocol, size=size))
    if not parts:
        return pd.DataFrame(columns=[*_GROUP, *_VALUES])
    table = pd.concat(parts, ignore_index=True).assign(dataset=AVERAGE)
    return sort_cells(table)[[*_GROUP, *_VALUES]]


def over_samples(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what other test images may change of a cell's mean ACC, where that was measured.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`. Intervals stand in `acc_low` and `acc_high`; the
        paper's numbers have none.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, protocol, backbone, size, over, mean, low, high, n (seeds, as in
        `n_seeds`); cells without an interval are left out.
    """
    if not {"acc_low", "acc_high"} <= set(cells.columns):
        return pd.DataFrame(columns=[*KEYS, *_VALUES])
    measured = sort_cells(cells.dropna(subset=["acc_mean", "acc_low", "acc_high"]))
    names = {"acc_mean": "mean", "acc_low": "low", "acc_high": "high", "n_seeds": "n"}
    return measured.rename(columns=names).assign(over=SAMPLES)[[*KEYS, *_VALUES]]


def mean_interval(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Student's t interval of the mean over rows of each column.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns), float64
        Without NaN.

    Returns
    -------
    low, high : ndarray of shape (n_columns,), float64
        NaN for fewer than `MIN_DATASETS` rows.
    """
    n_rows, n_columns = values.shape
    if n_rows < MIN_DATASETS:
        return np.full(n_columns, np.nan), np.full(n_columns, np.nan)
    mean, half = values.mean(axis=0), student_half(values)
    return mean - half, mean + half


def _draw(frame: pd.DataFrame, backbones: pd.Series) -> Drawing:
    """Draw mean ACC with its interval by protocol, backbone and size."""
    found = {(row.protocol, row.backbone, row.size): row for row in frame.itertuples()}
    rows = Rows(frame, backbones, "mean ACC, %")
    for protocol, axes in rows.panels():
        there = [one for one in rows.places() if (protocol, one.backbone, one.size) in found]
        intervals = [found[protocol, one.backbone, one.size] for one in there]
        axes.hlines(
            [one.middle for one in there],
            [one.low for one in intervals],
            [one.high for one in intervals],
            color=[one.colour for one in there],
            lw=1.6,
        )
        for place, one in zip(there, intervals, strict=True):
            said = f"{place.label}: {read_percent(one.mean)} ({interval(one.low, one.high)})"
            style = place.sign.style(3.5)
            axes.plot([one.mean], [place.middle], linestyle="none", label=said, **style)
        axes.set_xlim(frame["low"].min() - 1.0, frame["high"].max() + 1.0)
    return rows.figure
