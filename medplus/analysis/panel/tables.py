"""A panel's tables, for files and for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from medplus.analysis.format import MISSING, p_value
from medplus.analysis.panel.errors import Case
from medplus.analysis.panel.panel import Panel
from medplus.analysis.panel.subgroups import Subgroups
from medplus.analysis.panel.wording import one_decimal, rate, threshold
from medplus.analysis.table import Block, Cell, Column, Kind, Table
from medplus.metrics.operating_points import RATES, Estimate

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
    """Return AUC and average precision of every class."""
    rows = [
        {
            "class": one.name,
            "n_positive": one.n_positive,
            "n": len(one.target),
            **_spread("auc", one.auc),
            "average_precision": 100 * one.average_precision,
        }
        for one in panel.classes
    ]
    shown = [
        [
            one.name,
            f"{one.n_positive} of {len(one.target)}",
            rate(one.auc),
            one_decimal(one.average_precision) if one.defined else MISSING,
        ]
        for one in panel.classes
    ]
    block = _block("Classes", ["Class"], ["Images", "AUC, %", "Average precision, %"], shown)
    return _table(f"panel_{panel.record.dataset}_classes", rows, [block])


def points_table(panel: Panel) -> Table:
    """Return every class's operating points."""
    rows = []
    blocks = []
    for one in panel.classes:
        shown = []
        for decision, point in one.points.items():
            counts = {name: getattr(point, name) for name in ("tp", "fp", "tn", "fn")}
            rates = {name: getattr(point, name) for name in RATES}
            known = {"class": one.name, "decision": decision, "threshold": point.threshold}
            spread = {
                key: x for name, found in rates.items() for key, x in _spread(name, found).items()
            }
            rows.append({**known, "prevalence": 100 * point.prevalence, **counts, **spread})
            shown.append([decision, threshold(point.threshold), *map(rate, rates.values())])
        caption = f"{one.name} ({one.n_positive} of {len(one.target)} images)"
        blocks.append(_block(caption, ["Decision"], ["Threshold", *_RATE_TITLES], shown))
    return _table(f"panel_{panel.record.dataset}_points", rows, blocks)


def groups_tables(dataset: str, found: Sequence[Subgroups]) -> Iterator[Table]:
    """Yield the table of groups, and that of the gaps between them, where there are any."""
    rows: list[dict[str, Any]] = []
    blocks = []
    for one in found:
        shown = []
        for group in one.groups:
            counts = {"n": group.n} | (
                {} if group.n_positive is None else {"n_positive": group.n_positive}
            )
            spread = {
                k: x for name, e in group.measures.items() for k, x in _spread(name, e).items()
            }
            rows.append({"by": one.by, "group": group.name, **counts, **spread})
            shown.append(
                [group.name, *map(str, counts.values()), *map(rate, group.measures.values())]
            )
        if shown:
            first = one.groups[0]
            titles = ["Images", *(() if first.n_positive is None else ("Positive",))]
            titles += [f"{name}, %" for name in first.measures]
            blocks.append(_block(f"By {one.by}", ["Group"], titles, shown))
    if rows:
        yield _table(f"subgroups_{dataset}", rows, blocks)
    if any(one.gaps for one in found):
        yield _gaps_table(dataset, found)


def _gaps_table(dataset: str, found: Sequence[Subgroups]) -> Table:
    gaps = [(one.by, gap) for one in found for gap in one.gaps]
    rows = [
        {
            "by": by,
            "measure": gap.measure,
            "best": gap.best,
            "worst": gap.worst,
            **_spread("gap", gap.difference),
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
    return _table(f"subgroups_{dataset}_gaps", rows, [block])


def cases_table(
    dataset: str,
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
    return _table(f"errors_{dataset}", rows, blocks)


def _spread(name: str, estimate: Estimate) -> dict[str, float]:
    """Return the columns of an estimate, in percent."""
    ends = ("", "_low", "_high")
    return {f"{name}{end}": 100 * value for end, value in zip(ends, estimate, strict=True)}


def _block(
    caption: str, words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]
) -> Block:
    columns = [*map(Column, words), *(Column(title, True) for title in numbers)]
    return Block(caption, columns, [[Cell(text) for text in row] for row in rows])


def _table(name: str, rows: Sequence[Mapping[str, Any]], blocks: Sequence[Block]) -> Table:
    frame = pd.DataFrame(rows)
    kinds: dict[str, Kind] = {column: _KINDS.get(column, "percent") for column in frame}
    return Table(name, frame, kinds, blocks)
