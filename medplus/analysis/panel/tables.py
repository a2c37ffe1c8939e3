"""A panel's tables: an estimate is three columns of a file, and one text for readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from medplus.analysis.format import p_value
from medplus.analysis.panel.all_classes import Panel
from medplus.analysis.panel.errors import Case
from medplus.analysis.panel.one_class import AS_PREDICTED
from medplus.analysis.panel.subgroups import Subgroups
from medplus.analysis.panel.wording import one_decimal, rate, threshold
from medplus.analysis.table import Block, Cell, Column, Kind, Table
from medplus.metrics.operating_points import RATES, Estimate, OperatingPoint

_MOST_WITH_THRESHOLDS = 2
_RATES = dict(zip(RATES, ("Sensitivity, %", "Specificity, %", "PPV, %", "NPV, %"), strict=True))
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("class", "decision", "by", "group", "measure", "best", "worst"), "text"),
    **dict.fromkeys(("shown_as", "image", "true", "predicted", "nearest_train"), "text"),
    **dict.fromkeys(("n", "n_positive", "tp", "fp", "tn", "fn"), "count"),
    "threshold": "exact",
    "p_value": "p",
    "p_holm": "p",
}
"""What columns hold; all others percent."""

_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "threshold": threshold,
    "p_holm": p_value,
    "probability": lambda percent: one_decimal(percent / 100),
}

Row = Mapping[str, Any]


def classes_table(panel: Panel) -> Table:
    """Return AUC and the run's own decision for every class; files also have average precision."""
    rows = [
        {"class": one.name, "n_positive": one.n_positive, "n": len(one.target), "auc": one.auc}
        | _rates(one.points[AS_PREDICTED])
        | {"average_precision": 100 * one.average_precision}
        for one in panel.classes
    ]
    shown = [row | {"n": f"{row['n_positive']} of {row['n']}"} for row in rows]
    titles = {"class": "Class", "n": "Images", "auc": "AUC, %", **_RATES}
    return _table(f"panel_{panel.key}_classes", rows, [_block("As predicted", titles, shown)])


def points_table(panel: Panel) -> Table:
    """Return every class's operating points; readers see those of two classes at most."""
    rows: list[Row] = []
    blocks = []
    for one in panel.classes:
        own = [
            {"class": one.name, "decision": decision, "threshold": point.threshold}
            | {"prevalence": 100 * point.prevalence}
            | {name: getattr(point, name) for name in ("tp", "fp", "tn", "fn")}
            | _rates(point)
            for decision, point in one.points.items()
        ]
        rows += own
        titles = {"decision": "Decision", "threshold": "Threshold", **_RATES}
        if own[1:] and len(panel.classes) <= _MOST_WITH_THRESHOLDS:
            blocks.append(_block(f"Thresholds for {one.name}", titles, own[1:]))
    return _table(f"panel_{panel.key}_points", rows, blocks)


def groups_tables(key: str, found: Sequence[Subgroups]) -> Iterator[Table]:
    """Yield the table of groups, and that of the gaps between them, where there are any."""
    rows: list[Row] = []
    blocks = []
    for one in found:
        own = [
            {"by": one.by, "group": of.name, "n": of.n, "n_positive": of.n_positive, **of.measures}
            for of in one.groups
        ]
        rows += own
        if own:
            positive = {} if one.groups[0].n_positive is None else {"n_positive": "Positive"}
            measures = {name: f"{name}, %" for name in one.groups[0].measures}
            titles = {"group": "Group", "n": "Images", **positive, **measures}
            blocks.append(_block(f"By {one.by}", titles, own))
    if rows:
        yield _table(f"subgroups_{key}", rows, blocks)
    gaps = [
        {"by": one.by, "measure": gap.measure, "best": gap.best, "worst": gap.worst}
        | {"gap": gap.difference, "p_value": gap.p_value, "p_holm": gap.p_holm}
        for one in found
        for gap in one.gaps
    ]
    if gaps:
        titles = {name: name.capitalize() for name in ("by", "measure", "best", "worst")}
        titles |= {"gap": "Gap, points", "p_holm": "p (Holm)"}
        block = _block("Gaps between best and worst", titles, gaps)
        yield _table(f"subgroups_{key}_gaps", gaps, [block])


def cases_table(
    key: str,
    groups: Mapping[str, Sequence[Case]],
    near: Mapping[Case, Sequence[str]],
    *,
    named: bool,
) -> Table:
    """Return the cases that are shown; `named`: the first group also for readers, if not seen."""
    rows = [
        {"shown_as": caption, "image": case.name, "true": case.true, "predicted": case.predicted}
        | {"probability": 100 * case.score, "nearest_train": "; ".join(near.get(case, ()))}
        for caption, cases in groups.items()
        for case in cases
    ]
    titles = {name: name.capitalize() for name in ("image", "true", "predicted")}
    titles["probability"] = "Probability, %"
    blocks = [
        _block(caption, titles, [row for row in rows if row["shown_as"] == caption])
        for caption in list(groups)[: int(named)]
    ]
    return _table(f"errors_{key}", rows, blocks)


def _rates(point: OperatingPoint) -> dict[str, Estimate]:
    return {name: getattr(point, name) for name in RATES}


def _block(caption: str, titles: Mapping[str, str], rows: Sequence[Row]) -> Block:
    columns = [Column(title, _KINDS.get(name) != "text") for name, title in titles.items()]
    return Block(
        caption, columns, [[Cell(_text(name, row[name])) for name in titles] for row in rows]
    )


def _text(name: str, value: Any) -> str:
    return rate(value) if isinstance(value, Estimate) else _SHOWN.get(name, str)(value)


def _table(name: str, rows: Sequence[Row], blocks: Sequence[Block]) -> Table:
    frame = pd.DataFrame([_written(row) for row in rows])
    kinds: dict[str, Kind] = {column: _KINDS.get(column, "percent") for column in frame}
    return Table(name, frame, kinds, blocks)


def _written(row: Row) -> dict[str, Any]:
    """Return a row with the columns of its estimates, in percent."""
    written: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Estimate):
            ends = zip((name, f"{name}_low", f"{name}_high"), value, strict=True)
            written |= {column: 100 * end for column, end in ends}
        else:
            written[name] = value
    return written
