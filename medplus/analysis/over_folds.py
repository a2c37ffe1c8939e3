"""How stable is it over folds? Cross-validated runs beside those on the official test split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import GREY, INK
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Table
from medplus.analysis.verdict_candidates import Candidate
from medplus.metrics.operating_points import Estimate
from medplus.naming import in_percent
from medplus.run.foldmeans import summarise
from medplus.run.record import RunRecord

_ROW, _TOP, _BELOW = 6.0, 5.0, 11.0


def over_folds(benchmark: Benchmark) -> Section | None:
    """Return how scores spread over folds; None where nothing was cross-validated."""
    groups = grouped(benchmark.folded)
    if not groups:
        return None
    rows = pd.DataFrame([_row(own) for own in groups])
    return Section(
        name="folds",
        title="How stable is it over folds?",
        short="Over folds",
        text="Each fold is tested once by what has learned from the others, and chose on one of "
        "them. The interval is that of the mean over folds, which share train images (Nadeau & "
        "Bengio, 2003); worst and best are single folds. Several seeds are averaged within each "
        "fold.",
        tables=(
            Table.of(
                "folds",
                "ACC over folds in percent",
                rows,
                "dataset backbone size protocol n_seeds folds acc_mean low high worst best",
            ),
        ),
        figures=(
            Figure(
                "folds",
                "ACC of every fold as a dot, their mean with its 95 % interval.",
                partial(_draw, groups),
            ),
        ),
        sentences=tuple(_sentence(own) for own in groups),
    )


def grouped(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return cross-validated records, those of one way together: its repeats and its seeds.

    Of several searches over one way's settings, the latest counts.
    """
    latest: dict[Any, RunRecord] = {}
    for record in sorted(records, key=lambda one: one.created):
        if record.folds is not None:
            latest[(*_way(record), record.seed, record.folds.repeat)] = record
    groups: dict[Any, list[RunRecord]] = {}
    for record in latest.values():
        groups.setdefault(_way(record), []).append(record)
    return [groups[way] for way in sorted(groups, key=str)]


def summary_of(own: Sequence[RunRecord]) -> tuple[Estimate, np.ndarray]:
    """Return mean and interval over the folds of all repeats, and each fold's ACC.

    Seeds are averaged within a fold, as far as all repeats have them.
    """
    by_repeat: dict[int, list[list[float]]] = {}
    n_train, n_test = [], []
    for record in own:
        assert record.folds is not None  # by `grouped`
        by_repeat.setdefault(record.folds.repeat, []).append(record.folds.acc)
        n_train += record.folds.n_train
        n_test += record.folds.n_test
    values = np.concatenate([np.mean(accs, axis=0) for _, accs in sorted(by_repeat.items())])
    return summarise(values.tolist(), float(np.mean(n_train)), float(np.mean(n_test))), values


def fold_sentence(benchmark: Benchmark, best: Candidate, record: RunRecord) -> str | None:
    """Return how stable the best candidate is over folds; None where that was not tried."""
    for own in grouped(benchmark.folded):
        if _same(own[0], record):
            found, values = summary_of(own)
            mean, low, high = map(in_percent, found)
            where = "within" if found.low <= best.test_acc <= found.high else "outside"
            return (
                f"Over {_dealt(own)} its mean ACC is {mean}, 95 % interval {low} to {high}, single "
                f"folds {in_percent(values.min())} to {in_percent(values.max())}: the "
                f"{in_percent(best.test_acc)} on the test split lie {where} that interval."
            )
    return None


def _way(record: RunRecord) -> tuple[Any, ...]:
    folds = record.folds
    assert folds is not None
    made = record.store_key or (record.backbone_digest, record.config.get("recipe"))
    dealt = (folds.n, folds.pool, record.config.get("rows"))
    what = (record.dataset, record.size, record.protocol, record.backbone, record.solver)
    return (*what, str(made), *dealt)


def _same(folded: RunRecord, record: RunRecord) -> bool:
    def made(one: RunRecord) -> tuple[Any, ...]:
        return (one.protocol, one.dataset_digest, one.size, one.backbone_digest, one.store_key)

    return made(folded) == made(record)


def _dealt(own: Sequence[RunRecord]) -> str:
    folds = own[0].folds
    assert folds is not None
    repeats = len({record.folds.repeat for record in own if record.folds is not None})
    of = "all images" if folds.pool else "train and val"
    whole = ", groups kept whole" if folds.grouped else ""
    return f"{repeats} × {folds.n} folds of {of}{whole}"


def _row(own: Sequence[RunRecord]) -> dict[str, Any]:
    first = own[0]
    found, values = summary_of(own)
    return {
        **{name: getattr(first, name) for name in ("dataset", "backbone", "size", "protocol")},
        "n_seeds": len({record.seed for record in own}),
        "folds": _dealt(own),
        "acc_mean": 100 * found.value,
        "low": 100 * found.low,
        "high": 100 * found.high,
        "worst": f"{100 * values.min():.2f}",
        "best": f"{100 * values.max():.2f}",
    }


def _label(own: Sequence[RunRecord]) -> str:
    first = own[0]
    who, how = label_of(first.backbone), PROTOCOL_LABELS[first.protocol]
    return f"{first.dataset} {first.size} px · {who} · {how}"


def _sentence(own: Sequence[RunRecord]) -> str:
    found, values = summary_of(own)
    mean, low, high = map(in_percent, found)
    return (
        f"{_label(own)}: {mean} over {_dealt(own)} (95 % interval {low} to {high}); single folds "
        f"from {in_percent(values.min())} to {in_percent(values.max())}."
    )


def _draw(groups: Sequence[Sequence[RunRecord]]) -> Drawing:
    labels = [_label(own) for own in groups]
    left = min(text_width(labels) + 4, WIDE / 2)
    height = _ROW * len(groups)
    sheet = Sheet(WIDE, _TOP + height + _BELOW)
    axes = sheet.axes(left, _TOP, WIDE - left - MARGIN, height)
    for row, own in enumerate(groups):
        found, values = summary_of(own)
        axes.plot(100 * values, np.full(len(values), row), "o", ms=3, color=GREY, alpha=0.6, mew=0)
        axes.plot([100 * found.low, 100 * found.high], [row, row], color=INK, lw=1.0)
        axes.plot(100 * found.value, row, "D", ms=4, color=INK)
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel("ACC, %")
    axes.grid(axis="y", visible=False)
    return sheet.figure
