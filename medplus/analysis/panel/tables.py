"""A panel's tables, for files and for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from medplus.analysis.format import p_value
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.errors import Case
from medplus.analysis.panel.one_class import AS_PREDICTED
from medplus.analysis.panel.subgroups import Subgroups
from medplus.analysis.panel.wording import one_decimal, rate, threshold
from medplus.analysis.table import Block, Cell, Column, Kind, Table
from medplus.metrics.operating_points import RATES, Estimate

_MOST_WITH_THRESHOLDS = 2
_RATE_TITLES = ("Sensitivity, %", "Specificity, %", "PPV, %", "NPV, %")
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("class", "decision", "by", "group", "measure", "best", "worst"), "text"),
    **dict.fromkeys(("shown_as", "image", "true", "predicted", "nearest_train"), "text"),
    **dict.fromkeys(("n", "n_positive", "tp", "fp", "tn", "fn"), "count"),
    "threshold": "exact",
    "p_value": "p",
    "p_holm": "p",
}
"""What columns hold; all others percent."""


def classes_table(panel: Panel) -> Table:
    """Return AUC and the run's own decision for every class; files also have average precision."""
    rows, shown = [], []
    for one in panel.classes:
        point = one.points[AS_PREDICTED]
        rates = {name: getattr(point, name) for name in RATES}
        known = {"class": one.name, "n_positive": one.n_positive, "n": len(one.target)}
        precision = {"average_precision": 100 * one.average_precision}
        rows.append({**known, **_spread(auc=one.auc, **rates), **precision})
        images = f"{one.n_positive} of {len(one.target)}"
        shown.append([one.name, images, rate(one.auc), *map(rate, rates.values())])
    titles = ["Images", "AUC, %", *_RATE_TITLES]
    block = _block("As predicted", ["Class"], titles, shown)
    return _table(f"panel_{panel.key}_classes", rows, [block])


def points_table(panel: Panel) -> Table:
    """Return every class's operating points; readers see those of two classes at most."""
    rows = []
    blocks = []
    for one in panel.classes:
        shown = []
        for decision, point in one.points.items():
            counts = {name: getattr(point, name) for name in ("tp", "fp", "tn", "fn")}
            rates = {name: getattr(point, name) for name in RATES}
            known = {"class": one.name, "decision": decision, "threshold": point.threshold}
            known["prevalence"] = 100 * point.prevalence
            rows.append({**known, **counts, **_spread(**rates)})
            shown.append([decision, threshold(point.threshold), *map(rate, rates.values())])
        caption = f"Thresholds for {one.name}"
        blocks.append(_block(caption, ["Decision"], ["Threshold", *_RATE_TITLES], shown[1:]))
    few = len(panel.classes) <= _MOST_WITH_THRESHOLDS
    shown_blocks = [block for block in blocks if block.rows and few]
    return _table(f"panel_{panel.key}_points", rows, shown_blocks)


def groups_tables(key: str, found: Sequence[Subgroups]) -> Iterator[Table]:
    """Yield the table of groups, and that of the gaps between them, where there are any."""
    rows: list[dict[str, Any]] = []
    blocks = []
    for one in found:
        shown = []
        for group in one.groups:
            counts = {"n": group.n, "n_positive": group.n_positive}
            rows.append({"by": one.by, "group": group.name, **counts, **_spread(**group.measures)})
            numbers = [str(n) for n in counts.values() if n is not None]
            shown.append([group.name, *numbers, *map(rate, group.measures.values())])
        if shown:
            first = one.groups[0]
            titles = ["Images", "Positive"][: 1 if first.n_positive is None else 2]
            titles += [f"{name}, %" for name in first.measures]
            blocks.append(_block(f"By {one.by}", ["Group"], titles, shown))
    if rows:
        yield _table(f"subgroups_{key}", rows, blocks)
    if any(one.gaps for one in found):
        yield _gaps_table(key, found)


def _gaps_table(key: str, found: Sequence[Subgroups]) -> Table:
    gaps = [(one.by, gap) for one in found for gap in one.gaps]
    rows = [
        {
            "by": by,
            "measure": gap.measure,
            "best": gap.best,
            "worst": gap.worst,
            **_spread(gap=gap.difference),
            "p_value": gap.p_value,
            "p_holm": gap.p_holm,
        }
        for by, gap in gaps
    ]
    shown = [
        [by, gap.measure, gap.best, gap.worst, rate(gap.difference), p_value(gap.p_holm)]
        for by, gap in gaps
    ]
    titles = ["By", "Measure", "Best", "Worst"]
    block = _block("Gaps between best and worst", titles, ["Gap, points", "p (Holm)"], shown)
    return _table(f"subgroups_{key}_gaps", rows, [block])


def cases_table(
    key: str,
    groups: Mapping[str, Sequence[Case]],
    near: Mapping[Case, Sequence[str]],
    *,
    named: bool,
) -> Table:
    """Return the cases that are shown; `named`: the first group also for readers, if not seen."""
    rows = [
        {
            "shown_as": caption,
            "image": case.name,
            "true": case.true,
            "predicted": case.predicted,
            "probability": 100 * case.score,
            "nearest_train": "; ".join(near.get(case, ())),
        }
        for caption, cases in groups.items()
        for case in cases
    ]
    columns = ["Image", "True", "Predicted"]
    blocks = [
        _block(
            caption,
            columns,
            ["Probability, %"],
            [[c.name, c.true, c.predicted, one_decimal(c.score)] for c in cases],
        )
        for caption, cases in list(groups.items())[: int(named)]
    ]
    return _table(f"errors_{key}", rows, blocks)


def _spread(**estimates: Estimate) -> dict[str, float]:
    """Return the columns of estimates, in percent."""
    ends = ("", "_low", "_high")
    return {
        f"{name}{end}": 100 * value
        for name, estimate in estimates.items()
        for end, value in zip(ends, estimate, strict=True)
    }


def _block(
    caption: str, words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]
) -> Block:
    columns = [*map(Column, words), *(Column(title, True) for title in numbers)]
    return Block(caption, columns, [[Cell(text) for text in row] for row in rows])


def _table(name: str, rows: Sequence[Mapping[str, Any]], blocks: Sequence[Block]) -> Table:
    frame = pd.DataFrame(rows)
    kinds: dict[str, Kind] = {column: _KINDS.get(column, "percent") for column in frame}
    return Table(name, frame, kinds, blocks)
