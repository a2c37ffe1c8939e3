"""How well a cheap protocol predicts which backbone an expensive one would favour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import Look, setting_label
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Key, Sheet
from medplus.analysis.drawing.style import FAINT, GREY, rank_ticks, short_names, signs
from medplus.analysis.format import first_upper, percent
from medplus.analysis.intervals import mean_interval
from medplus.analysis.results.cells import order_backbones
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table, dataset_block
from medplus.naming import counted

Setting = tuple[str, int]
"""Protocol and size."""

_PANEL, _TOP, _LEFT, _BELOW, _GAP = 68.0, 14.5, 14.0, 12.0, 18.0
_SIGN = 6.0
_SETTINGS = ["cheap_protocol", "cheap_size", "target_protocol", "target_size"]
_FEWEST_BACKBONES = 4


def transfers(benchmark: Benchmark) -> Section | None:
    """Return whether the cheap predicts the expensive; None for too few to rank."""
    if not benchmark.supports(3, _FEWEST_BACKBONES):
        return None
    found = [
        one for one in default_transfers(benchmark.compared) if one.n_backbones >= _FEWEST_BACKBONES
    ]
    if not found:
        return None
    few = [one.n_datasets for one in found if one.n_datasets < 3]
    note = f"A rank correlation over {counted(few[0], 'dataset')} has no interval." if few else ""
    return Section(
        name="transfers",
        title="Does the cheap predict the expensive?",
        short="Cheap predicts",
        text="Within each dataset the backbones are ranked by the cheap protocol and by the "
        "expensive one. ρ is Spearman's correlation of the two, averaged over datasets, with a "
        "Student's t interval over datasets. Regret: the percent points of ACC by the expensive "
        "protocol that you lose if you take the backbone that the cheap one ranks first; beside "
        "it what you lose by taking any. The cheap one is ranked on val where it is known.\n\n"
        "Coloured symbols are means over datasets, grey ones single datasets. On the dashed line "
        "both ranks agree.",
        tables=tuple(_tables(found)),
        figures=(
            Figure(
                "fig8_transfer",
                "Points: rank by a cheap setting against rank by an expensive one.",
                partial(_draw, found, benchmark.backbones),
            ),
        ),
        sentences=tuple(predictions(found)),
        notes=(note,) if note else (),
    )


def _tables(found: Sequence[Transfer]) -> Iterator[Table]:
    caption = (
        "How well a cheap setting predicts the ranks of an expensive one: Spearman's ρ within "
        "datasets, its 95 % interval over datasets, and the ACC lost in percent points by taking "
        "the backbone that the cheap setting ranks first, and by taking any"
    )
    settings = " ".join(_SETTINGS)
    yield Table.of(
        "transfer",
        caption,
        pd.DataFrame([vars(one) | _settings(one) for one in found]),
        f"{settings} n_datasets n_backbones rho low high regret random_regret ranked_on",
        kinds={"low": "exact", "high": "exact"},
    )
    yield Table.of(
        "transfer_ranks",
        "",
        pd.concat([one.points.assign(**_settings(one)) for one in found]),
        f"{settings} dataset backbone cheap_rank target_rank",
        blocks=[
            dataset_block(
                f"Ranks within each dataset: {one.label}",
                one.points,
                [f"{row.cheap_rank:g} → {row.target_rank:g}" for row in one.points.itertuples()],
            )
            for one in found
        ],
    )


def _settings(one: Transfer) -> dict[str, str | int]:
    return dict(zip(_SETTINGS, (*one.cheap, *one.target), strict=True))


@dataclass(frozen=True, eq=False)
class Transfer:
    """How the ranks at one setting agree with those at another.

    Attributes
    ----------
    cheap, target : tuple of (str, int)
        Protocol and size.
    points : pandas.DataFrame
        Columns dataset, backbone, cheap_rank, target_rank; ranks within the dataset, 1 is best,
        equal scores share their mean rank.
    n_datasets, n_backbones : int
        What `points` are over.
    rho : float
        Spearman's rank correlation, averaged over datasets. Datasets on which all backbones score
        the same at either setting have none and are left out; NaN where that leaves none.
    low, high : float
        Student's 95 % interval of `rho` over datasets; NaN for fewer than 3.
    regret, random_regret : float
        Percent points of target ACC that are lost by taking, on each dataset, the backbone that
        is best at the cheap setting, and those by taking any; averaged over datasets.
    ranked_on : {"val", "test"}
        What the cheap setting was scored on. Scores on the test images that the target is scored
        on too agree by these images alone: of ten equal backbones with a rho of 0.33 on average.
    """

    cheap: Setting
    target: Setting
    points: pd.DataFrame
    n_datasets: int
    n_backbones: int
    rho: float
    low: float
    high: float
    regret: float
    random_regret: float
    ranked_on: Literal["val", "test"]

    @property
    def predicts(self) -> bool:
        """Whether the interval of `rho`, where there is one, lies above 0."""
        return bool(self.rho > 0) and not self.low <= 0

    @property
    def label(self) -> str:
        """In words, which setting is to predict which."""
        return f"{setting_label(*self.cheap)} → {setting_label(*self.target)}"

    @property
    def means(self) -> pd.DataFrame:
        """Mean `cheap_rank` and `target_rank` over datasets, by backbone."""
        return self.points.groupby("backbone")[["cheap_rank", "target_rank"]].mean()


def transfer(cells: pd.DataFrame, cheap: Setting, target: Setting) -> Transfer | None:
    """Compare the backbones' ranks at two settings, dataset by dataset.

    Only backbones that have both settings on some dataset are compared, and only on the datasets
    where all of them have both. Correlations are averaged over datasets, rather than taken of all
    points at once, since ranks of different datasets are not to be compared. The cheap setting is
    ranked by its scores on val, if all that are compared have them: on test, both settings would
    owe to the same images.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`; `val_mean` is read where it is there.
    cheap, target : tuple of (str, int)
        Protocol and size.

    Returns
    -------
    Transfer or None
        None where fewer than two backbones, or no dataset, can be compared. Of backbones that are
        equally good at the cheap setting, the regret is that of the one that comes first in
        `order_backbones`.
    """
    wanted = _scores(cells, target)
    guess, truth = _shared(_scores(cells, cheap), wanted)
    ranked_on: Literal["val", "test"] = "test"
    if "val_mean" in cells.columns:
        on_val = _shared(_scores(cells, cheap, "val_mean"), wanted)
        if on_val[0].size and on_val[0].shape == guess.shape:
            (guess, truth), ranked_on = on_val, "val"
    n_datasets, n_backbones = truth.shape
    if n_backbones < 2 or not n_datasets:
        return None
    cheap_ranks = guess.rank(axis=1, ascending=False)
    target_ranks = truth.rank(axis=1, ascending=False)
    rhos = _correlations(cheap_ranks.to_numpy(), target_ranks.to_numpy())
    (low,), (high,) = mean_interval(rhos[:, None])
    taken = truth.to_numpy()[np.arange(n_datasets), guess.to_numpy().argmax(axis=1)]
    points = pd.DataFrame(
        {"cheap_rank": cheap_ranks.stack(), "target_rank": target_ranks.stack()}
    ).reset_index()
    return Transfer(
        cheap=cheap,
        target=target,
        points=points,
        n_datasets=n_datasets,
        n_backbones=n_backbones,
        rho=float(rhos.mean()) if len(rhos) else float("nan"),
        low=float(np.maximum(low, -1.0)),
        high=float(np.minimum(high, 1.0)),
        regret=float((truth.max(axis=1).to_numpy() - taken).mean()),
        random_regret=float((truth.max(axis=1) - truth.mean(axis=1)).mean()),
        ranked_on=ranked_on,
    )


def default_transfers(cells: pd.DataFrame) -> list[Transfer]:
    """Set cheap looks at the backbones against the result that is wanted.

    kNN and probe, each at its smallest size, are set against fine-tuning at its largest; in a
    table without fine-tuning, kNN at its smallest size against the probe at its largest.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

    Returns
    -------
    list of Transfer
        Those that can be computed.
    """
    sizes = cells.groupby("protocol")["size"]
    smallest, largest = sizes.min().to_dict(), sizes.max().to_dict()
    target = "finetune" if "finetune" in largest else "probe"
    if target not in largest:
        return []
    cheap = [name for name in ("knn", "probe") if name in smallest and name != target]
    found = (
        transfer(cells, (name, int(smallest[name])), (target, int(largest[target])))
        for name in cheap
    )
    return [one for one in found if one is not None]


def _scores(cells: pd.DataFrame, setting: Setting, column: str = "acc_mean") -> pd.DataFrame:
    """Return a score of datasets × backbones at a setting."""
    protocol, size = setting
    rows = cells[(cells["protocol"] == protocol) & (cells["size"] == size)]
    return settle(rows.pivot(index="dataset", columns="backbone", values=column))


def _shared(guess: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut two tables to the backbones that have both, and the datasets where all of them do."""
    datasets = guess.index.intersection(truth.index).sort_values()
    backbones = order_backbones(guess.columns.intersection(truth.columns))
    guess, truth = (scores.reindex(datasets, columns=backbones) for scores in (guess, truth))
    both = guess.notna() & truth.notna()
    both = both.loc[:, both.any()]
    complete, compared = both.index[both.all(axis=1)], both.columns
    return guess.loc[complete, compared], truth.loc[complete, compared]


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's rho of each row that has one."""
    varies = (np.ptp(first, axis=1) > 0) & (np.ptp(second, axis=1) > 0)
    pairs = zip(first[varies], second[varies], strict=True)
    return np.array([spearmanr(*pair).statistic for pair in pairs], dtype=np.float64)


def predictions(transfers: Sequence[Transfer]) -> Iterator[str]:
    """Yield how well the cheap predicts the expensive, and what trusting it costs."""
    for one in transfers:
        if pd.isna(one.rho):
            continue
        interval = "" if pd.isna(one.low) else f", 95 % interval {one.low:.2f} to {one.high:.2f}"
        limit = ""
        if one.ranked_on == "test":
            limit = (
                " Both were scored on the same test images, as no val scores are known, so that "
                "they agree more than they would on others."
            )
        yield (
            f"{first_upper(setting_label(*one.cheap))} "
            f"{'predicts' if one.predicts else 'does not predict'} the order of "
            f"{one.n_backbones} backbones under {setting_label(*one.target)}: the rank "
            f"correlation over {counted(one.n_datasets, 'dataset')} is {one.rho:.2f}{interval}. "
            f"Trusting it costs {one.regret:.1f} points of ACC on average, choosing at random "
            f"{one.random_regret:.1f}.{limit}"
        )


def _draw(transfers: Sequence[Transfer], all_backbones: pd.Series) -> Drawing:
    """Draw a panel per pair of settings: the ranks at one over those at the other."""
    backbones = order_backbones(name for one in transfers for name in one.points["backbone"])
    names, drawn = short_names(backbones), signs(all_backbones)
    key = Key(names, drawn, _SIGN, line=False)
    across = min(2, len(transfers))
    down = -(-len(transfers) // across)
    row = _TOP + _PANEL + _BELOW
    notes = 2 * LINE + 1.0
    # Beside a single panel there is room for the legend.
    aside = across == 1 and len(names) * LINE < _PANEL
    sheet = Sheet(WIDE, down * row + notes + (0.0 if aside else key.height) + MARGIN)
    for number, one in enumerate(transfers):
        line, place = divmod(number, across)
        left = _LEFT + place * (_PANEL + _GAP)
        axes = sheet.axes(left, line * row + _TOP, _PANEL, _PANEL)
        _draw_panel(axes, one, drawn, names)
        sheet.text(left, line * row + 2.5, _title(one), linespacing=1.35)
    if aside:
        sheet.legend(_LEFT + _PANEL + MARGIN, _TOP, 0, key.entries)
    else:
        key.put(sheet, down * row)
    sheet.note(
        MARGIN,
        sheet.height - MARGIN - notes + 2.0,
        "coloured: mean rank over datasets (1 = best); grey: ranks on single datasets, the larger "
        "the more datasets;\nline: equal ranks, above it a backbone does worse than the cheap "
        "setting promised",
    )
    return sheet.figure


def _draw_panel(
    axes: Axes, one: Transfer, drawn: Mapping[str, Look], names: Mapping[str, str]
) -> None:
    points = one.points
    crowd = points.groupby(["cheap_rank", "target_rank"]).size().reset_index(name="n")
    step = _PANEL / 25.4 * 72 / (one.n_backbones + 1)  # points from one rank to the next
    largest = crowd["n"].max()
    axes.scatter(
        crowd["cheap_rank"],
        crowd["target_rank"],
        s=(0.8 * min(step, 12.0)) ** 2 * crowd["n"] / largest,
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label="datasets",
    )
    axes.plot([1, one.n_backbones], [1, one.n_backbones], color=GREY, lw=0.6, ls="--", zorder=1)
    means = one.means
    for backbone in order_backbones(means.index):
        axes.plot(
            [means.loc[backbone, "cheap_rank"]],
            [means.loc[backbone, "target_rank"]],
            linestyle="none",
            label=names[backbone],
            zorder=3,
            **drawn[backbone].style(_SIGN),
        )
    ticks = rank_ticks(one.n_backbones)
    axes.set_xlim(0.4, one.n_backbones + 0.6)
    axes.set_ylim(0.4, one.n_backbones + 0.6)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(f"rank by {setting_label(*one.cheap)}")
    axes.set_ylabel(f"rank by {setting_label(*one.target)}")
    axes.grid(color=FAINT)


def _title(one: Transfer) -> str:
    rho = "ρ not defined" if math.isnan(one.rho) else f"ρ = {percent(one.rho)}"
    if not math.isnan(one.low):
        rho += f" (95 % interval {percent(one.low)} to {percent(one.high)})"
    return (
        f"{one.label}, {counted(one.n_datasets, 'dataset')}\n{rho}\n"
        f"ACC lost by trusting it: {percent(one.regret)} percent points"
    )
