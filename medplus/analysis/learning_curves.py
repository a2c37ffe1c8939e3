"""Would more labels help? Curves over the number of train images, as `medplus curve` kept them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Key, Sheet
from medplus.analysis.drawing.style import GREY, look, short_names, signs
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table
from medplus.analysis.verdict_candidates import Candidate
from medplus.curves.kept import Curve
from medplus.curves.powerlaw import PowerLaw
from medplus.curves.sentences import of_gain, of_law
from medplus.curves.summary import Series
from medplus.naming import safe_name
from medplus.run.record import RunRecord

_LEFT, _TOP, _HEIGHT, _BELOW, _GAP = 14.0, 9.0, 62.0, 12.0, 14.0
_KINDS = {"shots": "equally many images of each class", "fractions": "shares of train"}


def learning_curves(benchmark: Benchmark) -> Section | None:
    """Return what more labels have brought, and would bring; None where no curve was kept."""
    if not benchmark.curves:
        return None
    return section_of(benchmark.curves)


def section_of(curves: Sequence[Curve]) -> Section:
    """Return the section of some curves."""
    said = [
        f"{one.dataset} at {one.size} px: {sentence}" for one in curves for sentence in
        one.sentences()
    ]  # fmt: skip
    tables, figures = [], []
    for number, one in enumerate(curves):
        names = f"{one.dataset}_{one.size}" + f"_{number}" * (number > 0)
        rows = pd.DataFrame([_row(row) for own in one.series for row in own.to_dict()])
        caption = f"Test ACC by number of train images: {one.dataset} at {one.size} px"
        columns = "backbone protocol kind amount n_images acc_mean low high"
        tables.append(Table.of(f"labels_{safe_name(names)}", caption, rows, columns))
        figures.append(
            Figure(
                f"labels_{safe_name(names)}",
                f"Test ACC by number of train images, one line per backbone: {one.title}",
                partial(draw_curve, one),
            )
        )
    return Section(
        name="labels",
        title="Would more labels help?",
        short="More labels",
        text="Heads that learn from a part of the train images, drawn again and again; shaded are "
        "95 % intervals, dashed is the fitted power law. What val chose, and what it stopped, had "
        "all of val.",
        tables=tuple(tables),
        figures=tuple(figures),
        sentences=tuple(said),
    )


def curve_sentence(benchmark: Benchmark, best: Candidate, record: RunRecord) -> str | None:
    """Return what a curve of the best candidate's own embeddings says; None where there is none.

    Parameters
    ----------
    record : RunRecord
        Of one of its runs.
    """
    key, protocol = record.store_key, record.protocol
    for one in sorted(benchmark.curves, key=lambda curve: curve.created, reverse=True):
        own = [
            (series, law)
            for series, law in zip(one.series, one.laws, strict=True)
            if series.protocol == protocol and key and one.stores.get(series.backbone) == key
        ]
        if own:
            # Shares keep classes as frequent as they are; of one kind, the longest tells most.
            series, law = max(own, key=lambda pair: (pair[0].kind == "fractions", pair[0].n[-1]))
            gain = of_gain(series).partition(": ")[2].removesuffix(".")
            needs = of_law(series, law).partition(": ")[2]
            return f"Would more labels help? {gain[0].upper()}{gain[1:]}; {needs}"
    return None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["ci95"] or (np.nan, np.nan)
    return {
        **{name: row[name] for name in ("backbone", "protocol", "kind", "amount")},
        "n_images": row["labels"],
        "acc_mean": 100 * row["mean"],
        "low": 100 * low,
        "high": 100 * high,
    }


def draw_curve(curve: Curve) -> Drawing:
    """Draw a panel per kind and protocol: means, 95 % intervals, fits as thin dashed lines."""
    series, laws, title, target = curve.series, curve.laws, curve.title, curve.target
    panels = list(dict.fromkeys((one.kind, one.protocol) for one in series))
    names = short_names(list(dict.fromkeys(one.backbone for one in series)))
    drawn = signs(names)
    columns = min(2, len(panels))
    width = (WIDE - MARGIN - columns * _LEFT - (columns - 1) * 2) / columns
    rows = -(-len(panels) // columns)
    key = Key(names, drawn)
    with look():
        sheet = Sheet(WIDE, 6 + rows * (_TOP + _HEIGHT + _BELOW) + key.height + MARGIN)
        sheet.text(_LEFT, 2.5, title, fontsize=8)
        for number, (kind, protocol) in enumerate(panels):
            row, column = divmod(number, columns)
            axes = sheet.axes(
                _LEFT + column * (width + _LEFT + 2),
                6 + _TOP + row * (_TOP + _HEIGHT + _BELOW) - 2,
                width,
                _HEIGHT,
            )
            axes.set_title(f"{PROTOCOL_LABELS[protocol]}, {_KINDS[kind]}")
            ticks: set[int] = set()
            for one, law in zip(series, laws, strict=True):
                if (one.kind, one.protocol) == (kind, protocol):
                    _draw(axes, one, law, drawn[one.backbone].style())
                    ticks |= set(one.n.tolist())
            _finish(axes, sorted(ticks), target)
        key.put(sheet, 6 + rows * (_TOP + _HEIGHT + _BELOW))
    return sheet.figure


def _draw(axes: Axes, one: Series, law: PowerLaw, style: dict[str, Any]) -> None:
    mean, half = 100 * one.mean, 100 * one.half_widths
    known = np.isfinite(half)
    low, high = (mean - half)[known], (mean + half)[known]
    axes.fill_between(one.n[known], low, high, color=style["color"], alpha=0.18, lw=0)
    axes.plot(one.n, mean, label=one.label, **style)
    if np.isfinite(law.exponent):
        # What was refused is not carried beyond what was measured.
        n = np.geomspace(one.n[0], (3 if law.refused is None else 1) * one.n[-1], 100)
        fitted = 100 * (1 - law.error(n))
        axes.plot(n, fitted, color=style["color"], lw=0.7, ls=(0, (4, 2)), zorder=1)


def _finish(axes: Axes, ticks: Sequence[int], target: float | None) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("train images")
    axes.set_ylabel("test ACC, %")
    axes.grid(axis="y")
    if target is not None:
        axes.axhline(100 * target, color=GREY, lw=0.8, ls=":")
        axes.annotate(
            f"target {100 * target:g} %", (0.01, 100 * target), xycoords=axes.get_yaxis_transform(),
            ha="left", va="bottom", color=GREY, fontsize=6,
        )  # fmt: skip


def _apart(ticks: Sequence[int]) -> list[int]:
    """Return those ticks whose numbers do not touch on a logarithmic axis."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= 1.35 * kept[-1]:
            kept.append(tick)
    return kept
