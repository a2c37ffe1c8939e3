"""A `Benchmark` of the paper's numbers, or of recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.results.baseline import DOI, load_baseline
from medplus.analysis.results.reference import Reference
from medplus.analysis.results.runs import Runs
from medplus.analysis.results.select import select_alike
from medplus.curves.kept import Curve
from medplus.naming import utc_now
from medplus.run.record import RunRecord


def published() -> Benchmark:
    """Return the paper's published numbers."""
    return Benchmark(
        title="The MedMNIST+ benchmark as published",
        source=f"Doerrich et al., Scientific Reports 15, 7669 (2025), doi:{DOI}; means over three "
        "seeds as printed, kNN as one number",
        created=utc_now(),
        cells=load_baseline(),
        conditions={
            "finetune": "as published: AdamW, lr 1e-4, at most 100 epochs",
            "probe": "as published: AdamW, lr 1e-4, at most 100 epochs",
            "knn": "as published: k = 11, Euclidean",
        },
        baseline=True,
    )


def benchmark_of(
    runs: Runs,
    source: str,
    title: str | None = None,
    only: Sequence[tuple[str, str]] = (),
    tuned: Literal["fixed", "val"] = "val",
    reference: Reference | None = None,
    tolerance: float = 0.0,
) -> Benchmark:
    """Return recorded runs, like with like.

    Parameters
    ----------
    runs : Runs
        As `medplus.analysis.results.runs.read_runs` returns them.
    source : str
        Where they come from, in one line.
    title : str, optional
    only, tuned
        See `medplus.analysis.results.select.select_alike`.
    reference : Reference, optional
        What they are set beside.
    tolerance : float
        Percent points of ACC by which they may differ from it.

    Raises
    ------
    UsageError
        If `only` names what no run has.
    """
    selection = select_alike(runs.table, only, tuned)
    # A verdict chooses on val, whatever the tables show.
    chosen = selection if tuned == "val" else select_alike(runs.table, only, "val")
    return Benchmark(
        title=title or "Your runs",
        source=source,
        created=utc_now(),
        cells=selection.cells,
        runs=selection.runs,
        chosen=chosen.runs,
        conditions=selection.conditions,
        reference=reference,
        tolerance=tolerance,
        unlike=selection.unlike,
        skipped=runs.skipped,
        folded=tuple(one for one in runs.folded if _is_asked(one, only)),
        curves=tuple(one for one in runs.curves if _is_asked(one, only)),
    )


def _is_asked(one: RunRecord | Curve, only: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a run over folds, or a curve, is of a dataset and size that is asked for."""
    return all(
        (name, str(getattr(one, name))) in only
        for name in ("dataset", "size")
        if name in dict(only)
    )
