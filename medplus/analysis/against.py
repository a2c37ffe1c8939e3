"""Your results beside the paper's, or others: reproduced or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pandas as pd
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import setting_label
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Key, Sheet
from medplus.analysis.drawing.style import GREY, PAPER, short_names, signs
from medplus.analysis.format import one_line
from medplus.analysis.results.cells import KEYS, order_backbones
from medplus.analysis.results.contenders import AXES
from medplus.analysis.results.reference import Reference
from medplus.analysis.results.runs import ANY
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table

TOLERANCE = 2.0
"""Percent points of ACC; BreastMNIST's test set has 156 images, of which one is 0.64."""

_PRINTED = 0.005
"""The paper's numbers are rounded to two decimals: so far off may each of them be."""

AGAINST_COLUMNS = [
    *KEYS, "acc", "paper_acc", "paper_std", "difference", "within_spread", "within_interval",
    "tolerance", "passed", "differs",
]  # fmt: skip

_TOP, _LEFT, _HEIGHT, _BELOW = 4.0, 14.0, 80.0, 11.0


def against(benchmark: Benchmark) -> Section | None:
    """Return runs beside what they are to be set beside; None where that was not asked for."""
    reference = benchmark.reference
    if reference is None or benchmark.runs is None:
        return None
    name = reference.name
    found = beside(benchmark.cells, benchmark.runs, reference, benchmark.tolerance)
    text = (
        f"{int(found['passed'].sum())} of {len(found)} cells that you share with {name} pass at "
        "the stated tolerance (dotted; cells that fail are hollow). Beside it stands whether the "
        "difference lies within their spread over seeds, and whether their ACC lies in your 95 % "
        "interval over test images."
    )
    figure = Figure(
        "fig11_against",
        f"Points: your ACC less that of {name}, over theirs.",
        partial(_draw, found, benchmark.backbones, name),
    )
    caption = f"Runs beside {name}, ACC in percent"
    return Section(
        name="against",
        title=f"Beside {name}",
        short=f"Beside {name}",
        text=text if len(found) else f"None of your cells is one of {name}.",
        tables=(Table.of("against", caption, found, " ".join(AGAINST_COLUMNS)),),
        figures=(figure,) if len(found) else (),
        sentences=tuple(reproduction(found, reference)) if len(found) else (),
    )


def beside(
    cells: pd.DataFrame, runs: pd.DataFrame, reference: Reference, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """Set the cells beside those of a reference.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`, with the further columns of runs.
    runs : pandas.DataFrame
        The runs that the cells were made of, for their conditions.
    reference : Reference
    tolerance : float
        Percent points of ACC.

    Returns
    -------
    pandas.DataFrame
        Columns `AGAINST_COLUMNS`, a row for each cell that the reference has. `difference` is
        yours minus theirs, in percent points. `within_spread` says whether it is at most their
        standard deviation over seeds, as far as two printed decimals tell, and `within_interval`
        whether their ACC lies in your 95 % interval over test samples; both are None where
        there is none. `passed` says whether the difference is within the tolerance. `differs` names
        the conditions that are not theirs: with any of them a difference tells nothing about
        the code.
    """
    names = {"acc_mean": "paper_acc", "acc_std": "paper_std", "backbone": "network"}
    theirs = reference.cells[[*KEYS, *AXES, "acc_mean", "acc_std"]].rename(columns=names)
    same = ["dataset", "protocol", "network", "size"]
    both = cells.merge(theirs, on=same, suffixes=("", "_of_theirs"))
    for axis in AXES:
        asked = both[f"{axis}_of_theirs"]
        both = both[(asked == "") | (asked == both[axis])]
    difference = (both["acc_mean"] - both["paper_acc"]).round(8)
    inside = (both["acc_low"] <= both["paper_acc"]) & (both["paper_acc"] <= both["acc_high"])
    found = both.assign(
        acc=both["acc_mean"],
        difference=difference,
        within_spread=_known(
            difference.abs() <= both["paper_std"] + 2 * _PRINTED, both["paper_std"].notna()
        ),
        within_interval=_known(inside, both["acc_low"].notna()),
        tolerance=tolerance,
        passed=difference.abs() <= tolerance,
        differs=differences(both, runs, reference),
    )
    return found[AGAINST_COLUMNS].reset_index(drop=True)


def _known(values: pd.Series, known: pd.Series) -> pd.Series:
    return values.astype(object).where(known, None)


def differences(cells: pd.DataFrame, runs: pd.DataFrame, reference: Reference) -> list[str]:
    """Name for each cell the conditions of its runs that are not those of a reference."""
    first = {key: rows["conditions"].iloc[0] for key, rows in runs.groupby(KEYS)}
    texts = []
    for row in cells[KEYS].itertuples(index=False, name=None):
        conditions: Mapping[str, str] = first.get(row, {})
        wanted = reference.conditions.get(row[KEYS.index("protocol")], {})
        texts.append(
            ", ".join(
                f"{name} {conditions[name]}"
                for name, value in wanted.items()
                if conditions.get(name, value) not in (value, ANY)
            )
        )
    return texts


def reproduction(against: pd.DataFrame, reference: Reference) -> Iterator[str]:
    """Yield how many cells agree with those of a reference."""
    passed, tolerance = int(against["passed"].sum()), against["tolerance"].iloc[0]
    strict = against[against["differs"] == ""]
    alike = (
        f"of the {len(strict)} that were run under its conditions, {int(strict['passed'].sum())}"
        if len(strict)
        else "none was run under its conditions"
    )
    yield (
        f"{passed} of {len(against)} cells lie within {tolerance:g} points of the ACC of "
        f"{reference.name}" + (f"; {alike}." if reference.conditions else ".")
    )


def _draw(frame: pd.DataFrame, all_backbones: pd.Series, name: str) -> Drawing:
    """Draw your ACC less theirs over theirs; hollow where it fails the tolerance."""
    backbones = order_backbones(frame["backbone"])
    names, drawn = short_names(backbones), signs(all_backbones)
    below, key = _TOP + _HEIGHT + _BELOW, Key(names, drawn, 5.0, line=False)
    sheet = Sheet(WIDE, below + key.height + MARGIN)
    axes = sheet.axes(_LEFT, _TOP, WIDE - _LEFT - MARGIN, _HEIGHT)
    for row in frame.itertuples():
        sign = drawn[row.backbone]
        style = sign.style(5.0)
        if not row.passed:
            style |= {"color": PAPER, "markeredgecolor": sign.colour, "markeredgewidth": 1.2}
        setting = setting_label(row.protocol, row.size)
        said = f"{one_line(row.dataset)}, {names[row.backbone]}, {setting}: {row.difference:+.2f}"
        axes.plot([row.paper_acc], [row.difference], linestyle="none", label=said, **style)
    axes.axhline(0.0, color=GREY, lw=0.6)
    for tolerance in frame["tolerance"].unique():
        for y in (-tolerance, tolerance):
            axes.axhline(y, color=GREY, lw=0.8, ls=":")
    axes.margins(y=0.1)
    axes.grid()
    axes.set_xlabel(f"ACC of {name}, %")
    axes.set_ylabel(f"yours less that of {name}, percent points")
    key.put(sheet, below)
    return sheet.figure
