"""The report as one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medplus.analysis.against import TOLERANCE
from medplus.analysis.document import Document, analyse
from medplus.analysis.load import benchmark_of, published
from medplus.analysis.paired import Pair
from medplus.analysis.results.reference import load_reference
from medplus.analysis.results.runs import read_runs
from medplus.errors import UsageError
from medplus.reporting.build import check_folder, write_report
from medplus.run.ledger import read_predictions, read_record

_FEW = 3
"""Datasets of which a report shows panels unasked."""


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes
    ----------
    analysis : Document
        All that it says.
    out : Path
    files : tuple of Path
        ``index.html`` first.
    """

    analysis: Document
    out: Path
    files: tuple[Path, ...]


def report(
    runs: str | Path | None = None,
    out: str | Path = "report",
    *,
    against: str | Path | None = None,
    tolerance: float = TOLERANCE,
    only: Iterable[tuple[str, str]] = (),
    tuned: Literal["fixed", "val"] | None = None,
    title: str | None = None,
    positive: str | None = None,
    prevalence: float | None = None,
    by: str | Sequence[str] = (),
    table: str | Path | None = None,
    data_root: str | Path = "data",
) -> Report:
    """Write a report on recorded runs, or on the paper's published numbers.

    Parameters
    ----------
    runs : path, optional
        A folder of runs; None is the paper itself.
    out : path
        The report's folder: new, empty, or holding an earlier report, which is replaced.
    against : str or path, optional
        What the runs are set beside: ``paper``, or a CSV file of results; see
        `medplus.analysis.results.reference.load_reference`.
    tolerance : float
        Percent points of ACC by which they may differ from it.
    only : iterable of (name, value)
        Conditions that runs must have, for example ``("k", "5")``.
    tuned : {"fixed", "val"}, optional
        Whether k, learning rate and weight decay are the same everywhere, or chosen on val; by
        default the latter, but beside the paper, which has one choice for all, the former.
    title : str, optional
    positive, prevalence, by, table, data_root
        Of the clinical panel of each dataset's best run; as for `medplus.panel` and
        `medplus.analysis.panel.sections_of`. Of more than three datasets panels are only made where
        one of the first three is given.

    Returns
    -------
    Report

    Raises
    ------
    RunError
        If there are no runs, the folder cannot be written or holds something else, or a table to
        set them beside is wrong.
    UsageError
        If `only` names what no run has, the tolerance is no number from 0 up, or something that is
        about runs is given without them.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> runs = medplus.knn(store, k=5)
    >>> medplus.report("runs", "report", tuned="val").files[0].name
    'index.html'
    """
    out = Path(out)
    if not 0 <= tolerance < math.inf:
        raise UsageError(f"tolerance = {tolerance}: must be a number of percent points from 0 up")
    only = tuple(only)
    of_panel = positive is not None or bool(by)
    if runs is None and (against or only or title or tuned or of_panel):
        raise UsageError(
            "against, only, tuned, title, positive and by are about runs; name their folder with "
            "runs"
        )
    check_folder(out)  # before anything is computed
    if runs is None:
        benchmark = published()
    else:
        reference = None if against is None else load_reference(str(against))
        benchmark = benchmark_of(
            read_runs(Path(runs)),
            source=f"the runs in {runs}",
            title=title,
            only=only,
            tuned=tuned or ("fixed" if against == "paper" else "val"),
            reference=reference,
            tolerance=tolerance,
        )
    analysis = analyse(benchmark)
    best = [Path(one.best.runs[0]) for one in analysis.verdicts if one.best.runs]
    if best and (of_panel or len(best) <= _FEW):
        from medplus.analysis.panel import sections_of

        panels = sections_of(
            best, positive, prevalence, by, None if table is None else Path(table), data_root
        )
        verdict, *others = analysis.sections
        analysis = replace(analysis, sections=(verdict, *panels, *others))
    return Report(analysis, out, tuple(write_report(analysis, out)))


def compare_runs(first: str | Path, second: str | Path) -> Pair:
    """Return two runs that can be compared image by image, from their saved predictions.

    Parameters
    ----------
    first, second : path
        Folders of runs that were scored on the same test images.

    Raises
    ------
    RunError
        If a run or its predictions cannot be read.
    UsageError
        If the runs were not tested on the same images.
    """
    one, other = (read_record(Path(folder)).task for folder in (first, second))
    if one != other:
        raise UsageError(f"the runs are of different tasks ({one} and {other})")
    ours, theirs = (read_predictions(Path(folder)) for folder in (first, second))
    return Pair(ours, theirs, one)
