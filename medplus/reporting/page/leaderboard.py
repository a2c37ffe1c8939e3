"""All cells of the benchmark as one sortable table, each with where its number comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medplus.analysis import format as fmt
from medplus.analysis.accuracy import SCORE_NAMES, best_and_second
from medplus.analysis.benchmark import Benchmark
from medplus.analysis.document import Document
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, look_of
from medplus.analysis.results.baseline import DOI
from medplus.analysis.results.cells import AVERAGE, KEYS, Extent
from medplus.reporting.page.links import PageLinks

_FURTHER = ["acc_low", "acc_high", "device_seconds", "runs"]
_PRINTED = {"finetune": "end-to-end training", "probe": "linear probing", "knn": "kNN"}

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


def leaderboard(document: Document, links: PageLinks) -> Leaderboard:
    """Build the leaderboard of a report."""
    benchmark = document.benchmark
    cells = _with_further_columns(benchmark)
    datasets = sorted(set(cells["dataset"]), key=lambda name: (name != AVERAGE, name))
    extent = Extent.of(cells)
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
        "protocols": [{"name": one, "label": PROTOCOL_LABELS[one]} for one in extent.protocols],
        "backbones": [
            {"name": name, "label": look.label, "colour": look.colour}
            for name in extent.backbones
            for look in (look_of(name, extent.backbones),)
        ],
        "conditions": dict(benchmark.conditions),
        "columns": [key for key, _ in columns],
        "doi": DOI if benchmark.baseline else None,
        "rows": list(_rows(cells, (datasets, extent.protocols, extent.backbones), document, links)),
    }
    return Leaderboard(data, tuple(columns), _first_rows(data))


def _rows(
    cells: pd.DataFrame,
    places: tuple[Sequence[str], ...],
    document: Document,
    links: PageLinks,
) -> Iterator[dict[str, Any]]:
    """Yield the cells as the script takes them; `places` are what they name by number."""
    sources = _Sources(document, links)
    marks = zip(*(best_and_second(cells, f"{score}_mean") for score in SCORE_NAMES), strict=True)
    for row, marked in zip(cells.itertuples(index=False), marks, strict=True):
        names = (row.dataset, row.protocol, row.backbone)
        yield {
            "at": [place.index(name) for place, name in zip(places, names, strict=True)],
            "size": int(row.size),
            "acc": fmt.json_number(row.acc_mean),
            "auc": fmt.json_number(row.auc_mean),
            "seeds": int(row.n_seeds),
            "cost": fmt.json_number(row.device_seconds),
            "low": fmt.json_number(row.acc_low),
            "text": {
                "acc": fmt.plus_minus(row.acc_mean, row.acc_std),
                "auc": fmt.plus_minus(row.auc_mean, row.auc_std),
                "low": fmt.interval(row.acc_low, row.acc_high),
                "cost": fmt.read_seconds(row.device_seconds),
            },
            "marks": list(marked),
        } | sources.of(row)


class _Sources:
    """Where each number comes from, as far as it is known."""

    def __init__(self, document: Document, links: PageLinks) -> None:
        self._baseline, self._links = document.benchmark.baseline, links
        frames = {name: table.frame for name, table in document.tables.items()}
        seeds = frames.get("intervals")
        told = (
            (None if seeds is None else seeds[seeds["over"] == "seeds"], _seeds_text),
            (frames.get("against"), _against_text),
        )
        self._lines: dict[Key, list[str]] = {}
        for table, text in told:
            for row in () if table is None else table.itertuples(index=False):
                self._lines.setdefault(_key(row), []).append(text(row))

    def of(self, row: Any) -> dict[str, Any]:
        """Return a row's runs, each with its link or None, and further lines."""
        if row.dataset == AVERAGE:
            return {}
        lines = self._lines.get(_key(row), [])
        if self._baseline:
            printed = f"{_PRINTED[row.protocol]}, {row.backbone}, {row.size} px."
            lines = [*lines, f"Printed in the paper's table of {row.dataset}: {printed}"]
        found: dict[str, Any] = {"lines": lines} if lines else {}
        if isinstance(row.runs, tuple):
            found["runs"] = [[run, self._links.of(run)] for run in row.runs]
        return found


def _key(row: Any) -> Key:
    return row.dataset, row.protocol, row.backbone, int(row.size)


def _against_text(row: Any) -> str:
    return (
        f"Theirs is {fmt.plus_minus(row.paper_acc, row.paper_std)}: "
        f"{fmt.difference(row.difference)}, {'passed' if row.passed else 'failed'} "
        f"at a tolerance of {fmt.read_percent(row.tolerance)}."
    )


def _seeds_text(row: Any) -> str:
    return f"95 % interval over seeds: {fmt.interval(row.low, row.high)} (n = {int(row.n)})."


def _with_further_columns(benchmark: Benchmark) -> pd.DataFrame:
    """Return all cells with what only cells of runs have; NaN in the averages."""
    further = [name for name in _FURTHER if name in benchmark.cells]
    shown = benchmark.averages
    if benchmark.n_datasets == 1:
        shown = shown[shown["dataset"] != AVERAGE]  # it would say everything twice
    cells = shown.merge(benchmark.cells[[*KEYS, *further]], on=KEYS, how="left")
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
