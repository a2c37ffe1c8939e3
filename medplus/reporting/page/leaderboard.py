"""All cells of the benchmark as one sortable table, each with where its number comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.analysis import Analysis
from medplus.reporting.baseline import DOI
from medplus.reporting.cells import AVERAGE, KEYS, order_backbones, order_protocols
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.numbers import (
    difference,
    interval,
    json_number,
    percent,
    plus_minus,
    seconds,
)
from medplus.reporting.page.parts import Mark
from medplus.reporting.palette import PROTOCOL_LABELS, look_of

_FURTHER = ["acc_low", "acc_high", "device_seconds", "runs"]
_PRINTED = {"finetune": "end-to-end training", "probe": "linear probing", "knn": "k-NN"}

Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Leaderboard:
    """What the page's script shows, and the rows that stand in the page without it.

    Attributes
    ----------
    data : dict
        Everything, for JSON.
    columns : tuple of (key, label)
        What is shown and can be sorted by.
    first : tuple of dict
        The rows that are shown at first: the averages, best first; all where there is none.
    """

    data: dict[str, Any]
    columns: tuple[tuple[str, str], ...]
    first: tuple[dict[str, Any], ...]


def leaderboard(analysis: Analysis, links: PageLinks) -> Leaderboard:
    """Build the leaderboard of an analysis."""
    cells = _with_further_columns(analysis)
    marks = {score: best_and_second(cells, score) for score in ("acc_mean", "auc_mean")}
    datasets = sorted(cells["dataset"].unique(), key=lambda name: (name != AVERAGE, name))
    protocols = order_protocols(cells["protocol"])
    backbones = order_backbones(cells["backbone"])
    places: tuple[Sequence[str], ...] = (datasets, protocols, backbones)
    sources = _Sources(analysis, links)
    rows = []
    for i, row in enumerate(cells.itertuples(index=False)):
        rows.append(
            {
                "at": [
                    names.index(name)
                    for names, name in zip(
                        places, (row.dataset, row.protocol, row.backbone), strict=True
                    )
                ],
                "size": int(row.size),
                "acc": json_number(row.acc_mean),
                "auc": json_number(row.auc_mean),
                "seeds": int(row.n_seeds),
                "cost": json_number(row.device_seconds),
                "low": json_number(row.acc_low),
                "text": {
                    "acc": plus_minus(row.acc_mean, row.acc_std),
                    "auc": plus_minus(row.auc_mean, row.auc_std),
                    "low": interval(row.acc_low, row.acc_high),
                    "cost": seconds(row.device_seconds),
                },
                "marks": [marks["acc_mean"][i], marks["auc_mean"][i]],
            }
            | sources.of(row)
        )
    columns = [
        ("backbone", "Backbone"),
        ("dataset", "Dataset"),
        ("protocol", "Protocol"),
        ("size", "Size (px)"),
        ("acc", "ACC (%)"),
        *([("low", "95 % interval (test images)")] if cells["acc_low"].notna().any() else []),
        *([("auc", "AUC (%)")] if cells["auc_mean"].notna().any() else []),
        ("seeds", "Seeds"),
        *([("cost", "Device time")] if cells["device_seconds"].notna().any() else []),
    ]
    data = {
        "average": AVERAGE if AVERAGE in datasets else None,
        "datasets": datasets,
        "protocols": [{"name": name, "label": PROTOCOL_LABELS[name]} for name in protocols],
        "backbones": [
            {"name": name, "label": look.label, "colour": look.colour}
            for name in backbones
            for look in (look_of(name, backbones),)
        ],
        "conditions": dict(analysis.conditions),
        "columns": [key for key, _ in columns],
        "doi": DOI if analysis.baseline else None,
        "rows": rows,
    }
    return Leaderboard(data, tuple(columns), _first_rows(data))


def best_and_second(cells: pd.DataFrame, score: str) -> list[Mark]:
    """Return which cells are best, and which second, of their dataset, protocol and size.

    Scores that print alike are alike. A cell without rivals is not best.
    """
    printed = cells[score].map(lambda value: float(fmt.percent(value) or "nan"))
    groups = printed.groupby([cells[key] for key in ("dataset", "protocol", "size")])
    places = groups.rank(method="dense", ascending=False)
    rivals = groups.transform("count") > 1
    return [
        "best" if place == 1 and rival else "second" if place == 2 and rival else ""
        for place, rival in zip(places, rivals, strict=True)
    ]


class _Sources:
    """Where each number comes from, as far as the analysis knows."""

    def __init__(self, analysis: Analysis, links: PageLinks) -> None:
        self._baseline = analysis.baseline
        self._links = links
        self._paper = _by_key(analysis.against, _against_text)
        seeds = analysis.intervals
        if len(seeds):
            seeds = seeds[seeds["over"] == "seeds"]
        self._seeds = _by_key(seeds, _seeds_text)

    def of(self, row: Any) -> dict[str, Any]:
        """Return a row's runs, each with its link or None, and further lines."""
        if row.dataset == AVERAGE:
            return {}
        key = (row.dataset, row.protocol, row.backbone, int(row.size))
        lines = [texts[key] for texts in (self._seeds, self._paper) if key in texts]
        if self._baseline:
            lines.append(
                f"Printed in the paper's table of {row.dataset}: {_PRINTED[row.protocol]}, "
                f"{row.backbone}, {row.size} px."
            )
        found: dict[str, Any] = {"lines": lines} if lines else {}
        if isinstance(row.runs, tuple):
            found["runs"] = [[run, self._links.of(run)] for run in row.runs]
        return found


def _by_key(table: pd.DataFrame | None, text: Callable[[Any], str]) -> Mapping[Key, str]:
    if table is None or table.empty:
        return {}
    return {
        (row.dataset, row.protocol, row.backbone, int(row.size)): text(row)
        for row in table.itertuples(index=False)
    }


def _against_text(row: Any) -> str:
    return (
        f"The paper has {plus_minus(row.paper_acc, row.paper_std)}: "
        f"{difference(row.difference)}, {'passed' if row.passed else 'failed'} "
        f"at a tolerance of {percent(row.tolerance)}."
    )


def _seeds_text(row: Any) -> str:
    return f"95 % interval over seeds: {interval(row.low, row.high)} (n = {int(row.n)})."


def _with_further_columns(analysis: Analysis) -> pd.DataFrame:
    """Return the benchmark with what only cells of runs have; NaN in the averages."""
    further = [name for name in _FURTHER if name in analysis.cells]
    shown = analysis.benchmark
    if analysis.cells["dataset"].nunique() == 1:
        shown = shown[shown["dataset"] != AVERAGE]  # it would say everything twice
    cells = shown.drop(columns=further, errors="ignore").merge(
        analysis.cells[[*KEYS, *further]], on=KEYS, how="left"
    )
    return cells.reindex(columns=[*dict.fromkeys([*cells.columns, *_FURTHER])])


def _first_rows(data: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    shown = [
        row
        for row in data["rows"]
        if data["average"] is None or data["datasets"][row["at"][0]] == data["average"]
    ]
    shown.sort(key=lambda row: -1.0 if row["acc"] is None else row["acc"], reverse=True)
    return tuple(
        row
        | {
            "dataset": data["datasets"][row["at"][0]],
            "protocol": data["protocols"][row["at"][1]],
            "backbone": data["backbones"][row["at"][2]],
        }
        for row in shown
    )
