"""All backbones at once: Friedman's test over datasets, and the critical difference of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from scipy.stats import friedmanchisquare, studentized_range

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import Look
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import (
    GREY,
    INK,
    LARGE,
    rank_ticks,
    short_names,
    signs,
)
from medplus.analysis.format import p_equals, percent
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table

_AXIS, _BAR, _ROW = 15.0, 2.6, 4.6


def critical_difference(benchmark: Benchmark) -> Section | None:
    """Return whether backbones differ at all; None for fewer than 5 datasets or 3 backbones."""
    if not benchmark.supports(5, 3):
        return None
    result = friedman(benchmark.means)
    assert result is not None
    n, apart = result.n_datasets, result.critical_difference
    differ = "differ" if result.p_value < 0.05 else "cannot be told apart"
    caption = (
        f"Mean ranks over {n} datasets (Friedman's test: statistic {percent(result.statistic)}, "
        f"{p_equals(result.p_value)}). Ranks that are {percent(apart)} or more apart differ "
        "significantly (Nemenyi); backbones that share a letter do not"
    )
    few = f"Friedman's p is an approximation that wants more than 10 datasets; here are {n}."
    of_test = "statistic p_value n_datasets critical_difference"
    pair = "Nemenyi test of each pair, after Friedman's test"
    return Section(
        name="friedman",
        title="All backbones at once: Friedman's test and critical difference",
        short="Critical difference",
        text=f"Friedman's test over {n} datasets: χ² = {result.statistic:.2f}, "
        f"{p_equals(result.p_value)}. By Nemenyi's test two mean ranks differ at the 5 % level "
        f"where they are {apart:.2f} or more apart (Demšar 2006).\n\n"
        "A bar joins backbones that cannot be told apart.",
        tables=(
            Table.of(
                "friedman",
                caption,
                _ranks(result),
                f"backbone mean_rank groups {of_test}",
                hidden=of_test,
            ),
            Table.of("nemenyi", pair, _nemenyi(result), "backbone_a backbone_b p_value"),
        ),
        figures=(
            Figure(
                "fig7_critical_difference",
                "Mean rank of every backbone; bars join those that do not differ significantly.",
                partial(_draw, result, benchmark.backbones),
            ),
        ),
        sentences=(
            f"Over {n} datasets the backbones {differ} as a group (Friedman p = "
            f"{result.p_value:.2g}); mean ranks must be {apart:.2f} apart to count.",
        ),
        notes=(few,) if n <= 10 else (),
    )


@dataclass(frozen=True, eq=False)
class Friedman:
    """Whether backbones differ at all, and which ones by enough.

    Attributes
    ----------
    statistic : float
        Friedman's chi-squared, corrected for ties.
    p_value : float
        Of the hypothesis that all backbones are equally good.
    n_datasets : int
        Datasets that were ranked.
    mean_ranks : pandas.Series of float, by backbone
        Mean over datasets of the rank; 1 is best, equal scores share their mean rank.
    critical_difference : float
        Mean ranks that differ by this much or more differ significantly (Nemenyi).
    cliques : tuple of tuple of str
        The largest groups of backbones, two or more, of which no two differ significantly; within
        and between groups in the order of mean ranks. They overlap. The bars of a
        critical-difference diagram.
    nemenyi : pandas.DataFrame of float, backbones × backbones
        p-values of the Nemenyi test for each pair; 1 on the diagonal.
    """

    statistic: float
    p_value: float
    n_datasets: int
    mean_ranks: pd.Series
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]
    nemenyi: pd.DataFrame


def friedman(means: pd.DataFrame, alpha: float = 0.05) -> Friedman | None:
    r"""Compare all backbones at once, each dataset being one block [1]_.

    On each dataset the backbones are ranked. Friedman's statistic is that of scipy, corrected for
    ties. Two mean ranks differ significantly where they are no closer than

    .. math:: CD = q_\alpha \sqrt{\frac{k (k + 1)}{12 N}}

    with k backbones, N datasets, and q the studentized range of k groups and infinitely many
    degrees of freedom.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.analysis.results.averages.dataset_means`. Datasets that lack a
        backbone are left out.
    alpha : float, default 0.05
        Level of the critical difference, and so of the cliques.

    Returns
    -------
    Friedman or None
        None for fewer than 3 backbones or 2 datasets.

    References
    ----------
    .. [1] Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
       section 3.2.2.
    """
    blocks = settle(means.dropna())
    n_datasets, n_backbones = blocks.shape
    if n_backbones < 3 or n_datasets < 2:
        return None
    ranks = blocks.rank(axis=1, ascending=False)
    if (blocks.nunique(axis=1) == 1).all():
        # Where all is tied the statistic is 0 / 0; nothing speaks for any difference.
        statistic, p_value = 0.0, 1.0
    else:
        statistic, p_value = friedmanchisquare(*blocks.to_numpy().T)
    unit = np.sqrt(n_backbones * (n_backbones + 1) / (12 * n_datasets))
    difference = studentized_range.isf(alpha, n_backbones, np.inf) * unit
    apart = np.abs(np.subtract.outer(ranks.mean().to_numpy(), ranks.mean().to_numpy()))
    nemenyi = studentized_range.sf(apart / unit, n_backbones, np.inf)
    return Friedman(
        statistic=float(statistic),
        p_value=float(p_value),
        n_datasets=n_datasets,
        mean_ranks=ranks.mean(),
        critical_difference=float(difference),
        cliques=_cliques(ranks.mean(), float(difference)),
        nemenyi=pd.DataFrame(nemenyi, index=means.columns, columns=means.columns),
    )


def _cliques(mean_ranks: pd.Series, critical_difference: float) -> tuple[tuple[str, ...], ...]:
    ordered = mean_ranks.sort_values(kind="stable")
    places = ordered.to_numpy()
    found: list[tuple[str, ...]] = []
    covered = 0
    for start, place in enumerate(places):
        end = int(np.searchsorted(places, place + critical_difference, side="left"))
        # What does not reach further than the group before it is a part of that group.
        if end - start > 1 and end > covered:
            found.append(tuple(ordered.index[start:end]))
            covered = end
    return tuple(found)


def _ranks(result: Friedman) -> pd.DataFrame:
    """Return mean ranks, the best first; backbones that share a letter do not differ."""
    ranks = result.mean_ranks.sort_values(kind="stable").rename_axis("backbone")
    groups = [
        " ".join(_letters(i) for i, clique in enumerate(result.cliques) if backbone in clique)
        for backbone in ranks.index
    ]
    return ranks.reset_index(name="mean_rank").assign(
        groups=groups,
        statistic=result.statistic,
        p_value=result.p_value,
        n_datasets=result.n_datasets,
        critical_difference=result.critical_difference,
    )


def _letters(number: int) -> str:
    """Count in letters: a, b, …, z, aa, ab and so on."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def _nemenyi(result: Friedman) -> pd.DataFrame:
    pairs = combinations(result.nemenyi.index, 2)
    rows = [(a, b, float(result.nemenyi.loc[a, b])) for a, b in pairs]
    return pd.DataFrame(rows, columns=["backbone_a", "backbone_b", "p_value"])


@dataclass(frozen=True)
class _Scale:
    """Where a rank stands, in millimetres: 1 at the left."""

    n_backbones: int
    left: float
    right: float

    def at(self, rank: float) -> float:
        step = (self.right - self.left) / (self.n_backbones - 1)
        return self.left + (rank - 1) * step


def _draw(result: Friedman, backbones: Iterable[str]) -> Drawing:
    """Draw a critical-difference diagram [1]_.

    References
    ----------
    .. [1] Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
       figure 1.
    """
    names = short_names(list(result.mean_ranks.index))
    half = -(-len(names) // 2)
    bars = _AXIS + 3.5
    labels = bars + _BAR * max(1, len(result.cliques)) + 1.0
    height = labels + _ROW * half + LINE + MARGIN
    sheet = Sheet(WIDE, height)
    axes = sheet.axes(0, 0, WIDE, height)  # measured in millimetres, as the sheet
    axes.set_axis_off()
    axes.set_xlim(0, WIDE)
    axes.set_ylim(height, 0)
    margin = MARGIN + text_width(names.values()) + 14.0
    scale = _Scale(len(names), margin, WIDE - margin)
    _draw_scale(axes, scale, result)
    _draw_names(axes, scale, result, names, signs(backbones), labels)
    for line, clique in enumerate(result.cliques):
        ends = [scale.at(result.mean_ranks[name]) for name in (clique[0], clique[-1])]
        y = bars + _BAR * line
        axes.plot([ends[0] - 0.7, ends[1] + 0.7], [y, y], color=INK, lw=2.6, label=f"clique {line}")
    sheet.note(MARGIN, height - LINE - 1.0, _caption(result))
    return sheet.figure


def _draw_scale(axes: Axes, scale: _Scale, result: Friedman) -> None:
    """Draw the axis of ranks, and over it the length of the critical difference."""
    axes.plot([scale.left, scale.right], [_AXIS, _AXIS], color=INK, lw=0.8)
    for rank in rank_ticks(scale.n_backbones):
        x = scale.at(rank)
        axes.plot([x, x], [_AXIS - 1.2, _AXIS], color=INK, lw=0.8)
        axes.text(x, _AXIS - 1.8, str(rank), ha="center", va="bottom")
    axes.text(scale.left - 4.0, _AXIS, "mean rank\n(1 = best)", ha="right", va="center", color=GREY)
    end, y = scale.at(1 + result.critical_difference), 6.5
    axes.plot([scale.left, end], [y, y], color=INK, lw=0.8, label="critical difference")
    for x in (scale.left, end):
        axes.plot([x, x], [y - 0.9, y + 0.9], color=INK, lw=0.8)
    text = f"critical difference {percent(result.critical_difference)}"
    axes.text(scale.left, y - 1.4, text, ha="left", va="bottom")


def _draw_names(
    axes: Axes,
    scale: _Scale,
    result: Friedman,
    names: Mapping[str, str],
    drawn: Mapping[str, Look],
    top: float,
) -> None:
    """Write the better half at the left, the other at the right, each joined to its place."""
    ranks = result.mean_ranks.sort_values(kind="stable")
    half = -(-len(ranks) // 2)
    for place, (backbone, rank) in enumerate(ranks.items()):
        left = place < half
        line = place if left else len(ranks) - 1 - place
        x, y = scale.at(rank), top + _ROW * (line + 0.5)
        edge = scale.left - 4.0 if left else scale.right + 4.0
        sign = drawn[str(backbone)]
        axes.plot([x, x, edge], [_AXIS, y, y], color=sign.colour, lw=0.8, zorder=1)
        axes.plot(
            [x],
            [_AXIS],
            linestyle="none",
            label=names[str(backbone)],
            zorder=4,
            **sign.style(5.0),
        )
        outwards = -1 if left else 1
        side = "right" if left else "left"
        axes.plot([edge], [y], linestyle="none", **sign.style(5.0))
        axes.text(
            edge + outwards * 2.0, y, percent(rank), ha=side, va="center_baseline", color=GREY
        )
        name = names[str(backbone)]
        axes.text(
            edge + outwards * 10.5, y, name, ha=side, va="center_baseline", fontsize=LARGE - 1
        )


def _caption(result: Friedman) -> str:
    return (
        f"Friedman's test over {result.n_datasets} datasets: {p_equals(result.p_value)}. Bars "
        "join backbones whose mean ranks do not differ significantly (Nemenyi, 0.05)."
    )
