"""What breaks it: runs on test images that were corrupted as MedMNIST-C does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.drawing.severities import draw_severities
from medplus.analysis.format import MISSING, interval, percentage, read_percent
from medplus.analysis.results.robustness import (
    Case,
    Means,
    breaks_it,
    in_words,
    means,
    over_seeds,
)
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Block, Cell, Column, Kind, Table
from medplus.corruptions.table import COLOUR, GREY, SEVERITIES
from medplus.errors import RunError
from medplus.naming import counted, in_percent, safe_name
from medplus.run.robustness import read_robustness

if TYPE_CHECKING:
    from medplus.analysis.benchmark import Benchmark

_TEXT = (
    "The same heads and networks, scored on test images that were made worse; nothing was trained "
    "or chosen on such images. The balanced error is 1 − balanced accuracy; means are over the "
    "severities of a corruption, and then over corruptions. These and their strengths are "
    "MedMNIST-C's (Di Salvo, Doerrich & Ledig, 2024)."
)


def robustness(benchmark: Benchmark) -> Section | None:
    """Return what breaks the runs; None where none was scored on corrupted images."""
    cases, notes = [], []
    for row in _runs_of(benchmark):
        try:
            found = read_robustness(Path(row["run"]))
        except RunError as error:
            notes.append(str(error))
            continue
        if found is not None and found.run_id == row["run_id"] and found.points:
            seed = None if pd.isna(row["seed"]) else int(row["seed"])
            named = (row["dataset"], row["protocol"], row["backbone"], int(row["size"]))
            cases.append(Case(*named, seed, str(row["run"]), found))
    return section_of(cases, notes) if cases or notes else None


def _runs_of(benchmark: Benchmark) -> list[dict[str, Any]]:
    tables = [runs for runs in (benchmark.runs, benchmark.chosen) if runs is not None]
    rows: dict[str, dict[str, Any]] = {}
    for table in tables:
        for row in table.to_dict("records"):
            rows.setdefault(str(row["run"]), {str(name): value for name, value in row.items()})
    return list(rows.values())


def verdict_sentence(runs: Sequence[str]) -> str | None:
    """Return what breaks runs of several seeds first, in one sentence; None where nobody knows."""
    found = []
    for run in runs:
        with suppress(RunError):  # the section says what is damaged
            found.append(read_robustness(Path(run)))
    scored = [one for one in found if one is not None and one.points]
    mean = over_seeds(scored) if scored else None
    if mean is None or not mean.points:
        return None
    over = f", the mean over {len(scored)} seeds" if len(scored) > 1 else ""
    return f"On corrupted images{over}: {breaks_it(mean)}"


def section_of(cases: Sequence[Case], notes: Sequence[str] = ()) -> Section:
    """Return the section on some cases.

    Parameters
    ----------
    cases : sequence of Case
    notes : sequence of str
        What else must be known.
    """
    labels = labels_of(cases)
    found = [means(case, cases) for case in cases]
    figures = []
    for dataset in dict.fromkeys(case.dataset for case in cases):
        of_it = {n: c for n, c in zip(labels, cases, strict=True) if c.dataset == dataset}
        figures.append(
            Figure(
                f"robustness_{safe_name(dataset)}",
                f"{dataset}: the balanced error by severity, a panel for each corruption.",
                partial(draw_severities, of_it),
            )
        )
    return Section(
        name="robustness",
        title="What breaks it?",
        short="Robustness",
        text=_TEXT,
        tables=(_means_table(cases, labels, found), _points_table(cases, labels)) if cases else (),
        figures=tuple(figures),
        sentences=tuple(_sentences(cases, labels, found)),
        notes=(*_notes(cases, found), *notes),
    )


def labels_of(cases: Sequence[Case]) -> list[str]:
    """Return what tells cases apart: backbone and protocol; size, seed, run where these do not."""
    labels = [f"{label_of(case.backbone)}, {PROTOCOL_LABELS[case.protocol]}" for case in cases]
    further = (
        [f"{case.size} px" for case in cases],
        ["" if case.seed is None else f"seed {case.seed}" for case in cases],
        [Path(case.run).name for case in cases],
    )
    for more in further:
        keys = [(case.dataset, label) for case, label in zip(cases, labels, strict=True)]
        labels = [
            f"{label}, {text}" if text and _differ(keys, key, more) else label
            for label, key, text in zip(labels, keys, more, strict=True)
        ]
    return labels


def _differ(keys: Sequence[Any], key: Any, texts: Sequence[str]) -> bool:
    """Tell whether what has a key is not all of one text."""
    return len({text for own, text in zip(keys, texts, strict=True) if own == key}) > 1


_POINTS = (
    "dataset backbone protocol size run corruption severity parameters_of balanced_error low high "
    "cost cost_se acc auc ece"
)
_POINT_KINDS: dict[str, Kind] = {
    "severity": "count", "cost": "difference",
    **dict.fromkeys(("balanced_error", "cost_se", "auc", "ece"), "percent"),
}  # fmt: skip


def _points_table(cases: Sequence[Case], labels: Sequence[str]) -> Table:
    rows = [
        {
            **{n: getattr(case, n) for n in ("dataset", "backbone", "protocol", "size", "run")},
            **{n: getattr(point, n) for n in ("corruption", "severity")},
            "parameters_of": point.table,
            "low": 100 * point.balanced_error_ci95[0],
            "high": 100 * point.balanced_error_ci95[1],
            **{n: percentage(getattr(point, n)) for n in _FRACTIONS},
        }
        for case in cases
        for point in case.found.points
    ]
    blocks = [_block(case, label) for case, label in zip(cases, labels, strict=True)]
    frame = pd.DataFrame(rows)
    return Table.of("robustness", "", frame, _POINTS, kinds=_POINT_KINDS, blocks=blocks)


_FRACTIONS = ("balanced_error", "cost", "cost_se", "acc", "auc", "ece")


def _block(case: Case, label: str) -> Block:
    """Set the balanced errors of a case's corruptions beside each other, by severity."""
    clean = case.found.clean
    heads = [Column("Corruption"), Column("Clean", numeric=True)]
    levels = [Column(f"{level}", numeric=True, group="Severity") for level in SEVERITIES]
    tail = [Column(name, numeric=True) for name in ("Mean", "Most lost", "ECE")]
    rows = []
    for name in case.corruptions:
        points = {point.severity: point for point in case.of(name)}
        most = max(points.values(), key=lambda point: point.cost)
        errors = [
            read_percent(100 * points[level].balanced_error) if level in points else MISSING
            for level in SEVERITIES
        ]
        texts = (
            in_words(name),
            read_percent(100 * clean.balanced_error),
            *errors,
            read_percent(100 * case.error(name)),
            read_percent(100 * most.cost),
            read_percent(100 * float(np.mean([point.ece for point in points.values()]))),
        )
        rows.append([Cell(text) for text in texts])
    return Block(
        f"{case.dataset} at {case.size} px, {label}: balanced error in percent by severity; most "
        f"lost in points; ECE in percent (clean: {read_percent(100 * clean.ece)}), the mean over "
        "severities",
        [*heads, *levels, *tail],
        rows,
    )


_MEANS = (
    "dataset backbone size clean clean_ci95 corrupted corrupted_ci95 lost mbE mrbE ece_clean "
    "ece_corrupted"
)
_MEAN_KINDS: dict[str, Kind] = {
    "backbone": "text", "lost": "difference", "mbE": "exact", "mrbE": "exact",
    **dict.fromkeys(("clean", "corrupted", "ece_clean", "ece_corrupted"), "percent"),
}  # fmt: skip
_MEANS_CAPTION = (
    "Balanced error on clean and on corrupted test images, and calibration error (ECE), in percent"
)
_TITLES = {
    "clean_ci95": "95 %", "corrupted_ci95": "95 % ", "mbE": "mbE", "mrbE": "mrbE",
    "ece_clean": "ECE, clean", "ece_corrupted": "ECE, corrupted",
}  # fmt: skip


def _means_table(cases: Sequence[Case], labels: Sequence[str], found: Sequence[Means]) -> Table:
    rows = [
        {
            "dataset": case.dataset,
            "backbone": label,
            "size": case.size,
            "clean": 100 * one.clean,
            "clean_ci95": interval(*(100 * end for end in one.clean_ci95)),
            "corrupted": 100 * one.corrupted,
            "corrupted_ci95": interval(*(100 * end for end in one.corrupted_ci95)),
            "lost": 100 * (one.corrupted - one.clean),
            "mbE": one.relative,
            "mrbE": one.relative_loss,
            "ece_clean": 100 * one.clean_ece,
            "ece_corrupted": 100 * one.corrupted_ece,
        }
        for case, label, one in zip(cases, labels, found, strict=True)
    ]
    frame = pd.DataFrame(rows)
    absent = [name for name in ("mbE", "mrbE") if frame[name].isna().all()]
    columns = " ".join(name for name in _MEANS.split() if name not in absent)
    return Table.of(
        "robustness_means", _MEANS_CAPTION, frame, columns,
        kinds=_MEAN_KINDS, hidden="size", titles=_TITLES,  # the labels tell the size
    )  # fmt: skip


def _sentences(
    cases: Sequence[Case], labels: Sequence[str], found: Sequence[Means]
) -> Iterator[str]:
    for case, label, one in zip(cases, labels, found, strict=True):
        yield (
            f"On {case.dataset}, {label}: {breaks_it(case.found)} Over "
            f"{counted(len(case.corruptions), 'corruption')} the balanced error is "
            f"{in_percent(one.corrupted)}, on clean images {in_percent(one.clean)}; the "
            f"calibration error (ECE) {in_percent(one.corrupted_ece)} and "
            f"{in_percent(one.clean_ece)}."
        )


def _notes(cases: Sequence[Case], found: Sequence[Means]) -> Iterator[str]:
    if not cases:
        return
    yield (
        "Intervals are over test images, each for itself; of means as if all corruptions erred "
        "together. What breaks it first is judged with Holm's correction for the number of "
        "corruptions and severities."
    )
    if all(one.relative is None for one in found):
        yield (
            "Errors relative to AlexNet (mbE, mrbE) are left out: no AlexNet of the same data, "
            "size and protocol was scored on the same corruptions."
        )
    elif any(one.relative_loss is None for one in found):
        yield (
            "mbE or mrbE is left out where no AlexNet was scored alike, or where it loses nothing "
            "under one of the corruptions."
        )
    if any(case.size != 224 for case in cases):
        yield (
            "MedMNIST-C is defined at 224 px. At other sizes lengths, such as the radius of a "
            "blur, shrink with the images; noise, JPEG and pixelation are as strong per pixel, "
            "and so destroy more of a small image."
        )
    if any(p.table in (GREY, COLOUR) for case in cases for p in case.found.points):
        yield (
            "Corruptions that MedMNIST-C does not have for these data are as strong as in its "
            "longest lists: ChestMNIST's for grey images, DermaMNIST's for colour."
        )
