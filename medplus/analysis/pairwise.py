"""Whether one backbone is better than another over datasets, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, wilcoxon

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.heatmap import frame_rows, ink_on, name_columns, write
from medplus.analysis.drawing.sheet import LINE, MARGIN, WIDE, Sheet, legend_height, text_width
from medplus.analysis.drawing.style import INK, MISSING, NORMAL, PAPER, short_names
from medplus.analysis.format import p_equals, p_value, significant
from medplus.analysis.friedman import friedman
from medplus.analysis.holm import holm
from medplus.analysis.results.averages import RELATED, merge_related
from medplus.analysis.results.cells import order_backbones
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table
from medplus.naming import counted

_FEWEST = 6
"""Datasets: fewer cannot give a p below 0.05."""

ROW_BETTER, COLUMN_BETTER = "#0072B2", "#E69F00"
_PALE = 0.28
_SIGNS = (
    ("row better, significant", ROW_BETTER, 1.0),
    ("row better, not significant", ROW_BETTER, _PALE),
    ("column better, significant", COLUMN_BETTER, 1.0),
    ("column better, not significant", COLUMN_BETTER, _PALE),
)
_MARGIN_ABOVE, _CELL_MAX, _CELL_MIN = 3.0, 12.5, 3.2
_LEGIBLE = 8.0
"""Millimetres that a cell needs for its number."""

_ENUMERABLE = 13
"""Up to so many datasets scipy tries all signs where there are ties: 2 ** 13 of them."""

COLUMNS = [
    "backbone_a", "backbone_b", "n_datasets", "mean_difference", "effect_size", "favoured",
    "p_value", "threshold", "significant", "p_holm", "significant_holm",
]  # fmt: skip


def pairwise(benchmark: Benchmark) -> Section | None:
    """Return which pairs differ; None for fewer than six datasets or two backbones."""
    if not benchmark.supports(_FEWEST, 2):
        return None
    pairs = compare_pairs(benchmark.means)
    n_datasets, n_pairs = len(benchmark.means), len(pairs)
    firm, holm_passed = (int(pairs[name].sum()) for name in ("significant", "significant_holm"))
    threshold = significant(pairs["threshold"].iloc[0])
    caption = (
        "Two-sided Wilcoxon signed-rank tests over datasets; significant below the threshold, "
        "which is 0.05 over the number of pairs (Bonferroni), or after Holm; difference of mean "
        "ACC in percent points, effect size: matched-pairs rank-biserial correlation"
    )
    return Section(
        name="pairwise",
        title="Pairwise differences, as the paper tests them",
        short="Pairwise tests",
        text=f"Two-sided Wilcoxon signed-rank tests over {n_datasets} datasets, each with its ACC "
        "averaged over the protocols and sizes that all backbones have. With Bonferroni's "
        f"correction p must lie below {threshold} (0.05 / {n_pairs}): {firm} of {n_pairs} pairs "
        "do.\n\nNot in the paper: Holm's correction guards against the same error and finds no "
        f"fewer differences, here {holm_passed} of {n_pairs}. The effect size is the matched-pairs "
        "rank-biserial correlation: 1 where the first is better on every dataset, −1 where the "
        "second is, 0 for a balance.",
        tables=(Table.of("pairwise", caption, pairs, " ".join(COLUMNS), hidden="threshold"),),
        figures=(
            Figure(
                "fig5_pairwise",
                "Matrix: the p-value of every pair of backbones.",
                partial(_draw, pairs, n_datasets),
            ),
        ),
        sentences=(
            f"Of {counted(n_pairs, 'pair')} of backbones, {firm} differ significantly after "
            f"Bonferroni's correction, {holm_passed} after Holm's.",
            *of_independent_data(benchmark.means),
        ),
        notes=tuple(_notes(benchmark, pairs)),
    )


def _notes(benchmark: Benchmark, pairs: pd.DataFrame) -> Iterator[str]:
    n_datasets = len(benchmark.means)
    threshold, least = pairs["threshold"].iloc[0], smallest_p(n_datasets)
    if lacking := benchmark.n_datasets - n_datasets:
        yield (
            f"{lacking} of {benchmark.n_datasets} datasets have no setting that all backbones were "
            "run at, and do not count here."
        )
    if least >= threshold:
        yield (
            f"{counted(n_datasets, 'dataset')} cannot support a claim about "
            f"{counted(len(pairs), 'pair')}: the smallest p that the test can give is {least:.3g}, "
            f"and {threshold:.3g} is asked for."
        )
    else:
        yield (
            f"{n_datasets} datasets support only large claims: a pair must agree on nearly all of "
            f"them to reach p < {threshold:.3g} (the smallest possible is {least:.3g})."
        )


def compare_pairs(means: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Compare all pairs of backbones over datasets.

    As the paper does (its Figure 5): two-sided Wilcoxon signed-rank test [1]_ with scipy's
    defaults; significant where p < alpha / number of pairs (Bonferroni). Beside it stand Holm's
    step-down procedure [2]_, which keeps the same error rate and finds at least as much, and the
    matched-pairs rank-biserial correlation [3]_ as the effect size: the signed ranks' sum in favour
    of the first, less that in favour of the second, over the sum of all. It is 1 where the first
    is better on every dataset, -1 where the second is, and 0 where they are even.

    Parameters
    ----------
    means : pandas.DataFrame, datasets × backbones
        See `medplus.analysis.results.averages.dataset_means`. Datasets that lack a
        backbone are left out.
    alpha : float, default 0.05
        Level of all pairs together.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; every pair once. `mean_difference` is a - b, in percent points;
        `favoured` has the higher mean, and is empty where the means are equal. p is 1 where a pair
        differs on no dataset, and NaN where there is no dataset.

    References
    ----------
    .. [1] Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945.
    .. [2] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6(2), 1979.
    .. [3] Kerby, "The simple difference formula: an approach to teaching nonparametric
       correlation", Comprehensive Psychology 3, 2014.
    """
    complete = means.dropna()
    rows = []
    for first, second in combinations(means.columns, 2):
        differences = settle((complete[first] - complete[second]).to_numpy(dtype=np.float64))
        mean = float(settle(differences.mean())) if len(differences) else float("nan")
        favoured = first if mean > 0 else second if mean < 0 else ""
        effect, p_value = _rank_biserial(differences), _signed_rank_p(differences)
        rows.append((first, second, len(differences), mean, effect, favoured, p_value))
    table = pd.DataFrame(rows, columns=COLUMNS[:7])
    threshold = alpha / max(1, len(table))
    table = table.assign(threshold=threshold, significant=table["p_value"] < threshold)
    if not len(table) or table["p_value"].isna().any():
        return table.assign(p_holm=np.nan, significant_holm=False)
    p_holm = holm(table["p_value"])
    return table.assign(p_holm=p_holm, significant_holm=p_holm <= alpha)


def of_independent_data(means: pd.DataFrame) -> Iterator[str]:
    """Yield what the tests say where datasets that share patients count as one."""
    merged = merge_related(means.dropna())
    if len(merged) == len(means.dropna()):
        return
    pairs, tested = compare_pairs(merged), friedman(merged)
    firm, by_holm = (int(pairs[name].sum()) for name in ("significant", "significant_holm"))
    said = f"with these as one, n = {len(merged)}: "
    if tested is not None:
        said += f"Friedman {p_equals(tested.p_value)}, "
    of = counted(len(pairs), "pair")
    said += f"{firm} of {of} differ after Bonferroni's correction, {by_holm} after Holm's"
    least, threshold = smallest_p(len(merged)), pairs["threshold"].iloc[0]
    if least >= threshold:
        said += f" (none can: p is never below {least:.2g}, and has to be below {threshold:.2g})"
    shared = [str(name) for name in means.index if name in RELATED]
    named = f"{', '.join(shared[:-1])} and {shared[-1]}"
    yield f"{named} show the same patients and are not independent; {said}."


def smallest_p(n_datasets: int) -> float:
    """Return the smallest p that the exact two-sided signed-rank test can give.

    All `n_datasets` then speak for the same backbone, which is one in 2 ** n of all ways to set
    the signs, and so is the opposite. A threshold at or below it cannot be passed.
    """
    return min(1.0, float(np.exp2(1 - n_datasets)))


def _signed_rank_p(differences: NDArray[np.float64]) -> float:
    if not len(differences):
        return float("nan")
    if not differences.any():
        return 1.0  # scipy drops differences of zero; where none is left, it divides by zero
    distinct = np.unique(np.abs(differences[differences != 0]))
    if len(distinct) < len(differences) <= _ENUMERABLE:
        # What `wilcoxon` does itself with ties, but for ranking anew after each change of signs,
        # which takes it a second per pair.
        found = permutation_test(
            (_signed_ranks(differences),), np.sum, permutation_type="samples", vectorized=True
        )
    else:
        found = wilcoxon(differences)
    return float(found.pvalue)


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    if not len(differences):
        return float("nan")
    signed = _signed_ranks(differences)
    return float(signed.sum() / np.abs(signed).sum()) if differences.any() else 0.0


def _signed_ranks(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank the differences by size, without those of zero, and give the ranks their signs."""
    ranks: NDArray[np.float64] = rankdata(np.abs(differences)) - (differences == 0).sum()
    return np.sign(differences) * ranks


def _draw(table: pd.DataFrame, n_datasets: int) -> Drawing:
    """Draw the p-value of each pair, coloured by which of the two is favoured."""
    backbones = order_backbones([*table["backbone_a"], *table["backbone_b"]])
    names = short_names(backbones)
    down, across = backbones[1:], backbones[:-1]
    left = MARGIN + text_width(names.values()) + 2.0
    cell = (WIDE - left - MARGIN) / len(across)
    cell = min(_CELL_MAX, max(_CELL_MIN, cell))
    height = min(cell, 6.5)
    foot = text_width(names[name] for name in across) * 0.71 + 6.0
    below = _MARGIN_ABOVE + height * len(down) + foot
    legend = legend_height([label for label, *_ in _SIGNS], WIDE - 2 * MARGIN)
    sheet = Sheet(WIDE, below + legend + LINE + 2.0 + MARGIN)
    axes = sheet.axes(left, _MARGIN_ABOVE, cell * len(across), height * len(down))
    for row in table.itertuples():
        place = across.index(row.backbone_a), down.index(row.backbone_b)
        _draw_pair(axes, *place, row, legible=cell >= _LEGIBLE)
    axes.set_xlim(0, len(across))
    frame_rows(axes, [names[name] for name in down])
    places = [place + 0.6 for place in range(len(across))]
    name_columns(
        axes, places, [names[name] for name in across], rotation=45, ha="right",
        rotation_mode="anchor",
    )  # fmt: skip
    sheet.legend(MARGIN, below, WIDE - 2 * MARGIN, _signs())
    sheet.note(MARGIN, below + legend + 1.5, _caption(table, n_datasets))
    return sheet.figure


def _draw_pair(axes: Axes, across: int, down: int, row: Any, legible: bool) -> None:
    """Fill one cell: backbone_b stands at the row, backbone_a at the column."""
    favoured, p = row.favoured, row.p_value
    significant = bool(row.significant)
    ground, ink = to_rgba(MISSING), INK
    if favoured != "" and not math.isnan(p):
        colour = ROW_BETTER if favoured == row.backbone_b else COLUMN_BETTER
        ground = to_rgba(colour, 1.0 if significant else _PALE)
        ink = ink_on(ground)
    cell = Rectangle((across, down), 1, 1, facecolor=ground, edgecolor=PAPER, linewidth=0.8)
    axes.add_patch(cell)
    number = p_value(p).removeprefix("0") or "–"
    write(
        axes,
        across + 0.5,
        down + 0.5,
        number if legible else "•" if significant else "",
        fontsize=NORMAL,
        fontweight="bold" if significant else "normal",
        color=ink,
    )


def _signs() -> list[tuple[str, Patch]]:
    return [(label, Patch(facecolor=to_rgba(colour, opacity))) for label, colour, opacity in _SIGNS]


def _caption(table: pd.DataFrame, n_datasets: int) -> str:
    threshold = float(table["threshold"].iloc[0])
    return (
        f"p-values of two-sided Wilcoxon signed-rank tests over {n_datasets} datasets; significant "
        f"(bold) where p < {threshold:.2g} = 0.05 / {counted(len(table), 'pair')}"
    )
